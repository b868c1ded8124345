"""Write into the pages for users what their commands print now.

    python -m tests.tools.docs_outputs [docs/PAGE.md ...]

Run from the repository's root. What is shortened by `...` and no longer right comes back whole.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import tests.conftest  # noqa: F401 - the same environment as in the tests
from tests.docs.test_outputs import FIRST, OTHERS
from tests.support.page_folders import prepare
from tests.support.pages import renewed
from tests.support.warm import warm_programs


def main() -> None:
    """Renew the first page, which the others build on, and those that are named, or all."""
    os.environ["PYTHONPATH"] = str(Path("python").resolve())
    with tempfile.TemporaryDirectory() as temporary, warm_programs(Path(temporary)) as programs:
        first = Path(temporary) / "first"
        first.mkdir()
        _renew(FIRST, first, programs)
        for name in sys.argv[1:] or OTHERS:
            folder = shutil.copytree(first, Path(temporary) / Path(name).stem)
            prepare(name, folder)
            _renew(name, folder, programs)


def _renew(name: str, folder: Path, programs: Path) -> None:
    path = Path(name)
    new, wrong = renewed(path.read_text("utf-8"), folder, programs)
    path.write_text(new, "utf-8")
    print(f"{path}: " + ("\n".join(wrong) or "as it was"))


if __name__ == "__main__":
    main()
