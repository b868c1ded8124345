"""What git leaves in place of a large file that it did not fetch."""

from pathlib import Path

from mergeplan.errors import MissingInputError
from mergeplan.system.reading import open_plain

_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Refuse a git-lfs pointer; the core does so for safetensors files.

    Raises:
        MissingInputError: The file is one.
    """
    with open_plain(path) as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise MissingInputError(
                f"`{path}`: expected the file itself, found a git-lfs pointer: it was not fetched",
                "`git lfs pull` in that folder fetches it, and so does `hf download`",
            )
