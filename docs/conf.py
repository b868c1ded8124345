"""The site of these pages: `sphinx-build -W --keep-going -n -b html docs OUT`."""

import re

import click
from sphinx.application import Sphinx

from mergeplan import __version__

project = "mergeplan"
version = release = __version__
copyright = "the mergeplan authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
source_suffix = {".md": "markdown"}

# Anchors are GitHub's, so that a link works there and here.
myst_heading_anchors = 4

# Docstrings and help have `code` in single backticks, and options that begin with --.
default_role = "literal"
smartquotes = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_typehints_description_target = "documented"
# Of types only public names of ours have a place here.
nitpick_ignore_regex = [("py:.*", r"(?!mergeplan\.\w+$).*")]

html_theme = "furo"
html_title = f"mergeplan {release}"
html_copy_source = False


def prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Make pages outside `docs` downloads."""
    out = "../" * (page.count("/") + 1)
    source[0] = re.sub(rf"\]\({re.escape(out)}(?=[\w/.-]+\.md\))", f"](path:{out}", source[0])


def escape(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Help is plain text but for its `code`: bars and single asterisks are what they are."""
    special = re.compile(r"\||(?<!\*)\*(?!\*)")
    lines[:] = [line if line.startswith("..") else special.sub(r"\\\g<0>", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("source-read", prepare)
    for part in ("description", "options"):
        app.connect(f"sphinx-click-process-{part}", escape)
