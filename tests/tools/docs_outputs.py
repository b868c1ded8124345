"""Write into the pages for users what their commands print now.

    python -m tests.tools.docs_outputs [PAGE.md ...]

Run from the repository's root. What is shortened by `...` and no longer right comes back whole.
"""

import os
import sys
import tempfile
from pathlib import Path

import tests.conftest  # noqa: F401 - the same environment as in the tests
from tests.docs.test_outputs import PAGES
from tests.support.pages import renewed
from tests.support.warm import warm_programs


def main() -> None:
    """Renew the pages that are named, or all."""
    pages = list(map(Path, sys.argv[1:])) or [Path("docs") / f"{name}.md" for name in PAGES]
    os.environ["PYTHONPATH"] = str(Path("python").resolve())
    with (
        tempfile.TemporaryDirectory() as folder,
        warm_programs(Path(folder)) as programs,
    ):
        for path in pages:
            page_folder = Path(folder) / path.stem
            page_folder.mkdir()
            page = path.read_text("utf-8")
            new, wrong = renewed(page, page_folder, programs)
            path.write_text(new, "utf-8")
            print(f"{path}: " + ("\n".join(wrong) or "as it was"))


if __name__ == "__main__":
    main()
