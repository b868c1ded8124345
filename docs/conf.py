"""The site of these pages: `sphinx-build -W --keep-going -n -b html docs OUT`."""

import re
from pathlib import Path

from sphinx.application import Sphinx

from mergeplan import __version__

project = "mergeplan"
version = release = __version__
copyright = "the mergeplan authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}

# Anchors are GitHub's, so that a link works there and here.
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"mergeplan {release}"
html_copy_source = False

HERE = Path(__file__).parent


def prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Take the contents for pages that are there, so that one may be written after its line."""
    if page == "index":
        names = re.findall(r"^[\w/-]+$", source[0], re.M)
        for name in names:
            if not (HERE / f"{name}.md").exists():
                source[0] = re.sub(rf"^{name}\n", "", source[0], flags=re.M)


def setup(app: Sphinx) -> None:
    app.connect("source-read", prepare)
