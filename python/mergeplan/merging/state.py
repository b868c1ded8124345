"""What makes a merge this merge: a resumed run must be the same one, or says what differs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from reprlib import Repr
from typing import Any

from mergeplan._native import __version__
from mergeplan.errors import InputError
from mergeplan.merging.manifest import InputRows
from mergeplan.merging.workfolder import DATA, HEAD, RECORD
from mergeplan.planning.document import Plan, to_json
from mergeplan.system.reading import RECORD as RECORD_FILE
from mergeplan.system.reading import read_bytes

# Beside what the plan says, the names of files.
_MORE_BYTES = 1_000_000


@dataclass(frozen=True)
class MergeState:
    """What makes a merge this merge.

    Attributes:
        inputs: For each stored model its files, as `manifest.InputFile` has them.
    """

    plan: Plan
    inputs: InputRows
    mergeplan_version: str = __version__

    def json(self) -> str:
        return to_json(self)

    def record(self, written: Iterable[str]) -> str:
        """The text of `merge.json`.

        Args:
            written: Names of the files that the merge writes.
        """
        names = json.dumps(sorted(written))
        return HEAD + names[1:] + ", " + self.json()[1:]


def check_same(folder: Path, state: MergeState) -> list[str]:
    """Check that what an earlier run left in a work folder is of this very merge.

    Returns:
        Input files that may have changed: their length, times, inode or device are not what they
        were.

    Raises:
        InputError: It is of another, or damaged.
    """
    path, expected = folder / RECORD, state.json()
    try:
        # It is this very text, or another merge's.
        text = read_bytes(path, RECORD_FILE, most_bytes=2 * len(expected) + _MORE_BYTES)
        left = json.loads(text)
        del left["mergeplan_merge"], left["files"]
        before = [[(str(row[0]), *row[1:]) for row in rows] for rows in left["inputs"]]
    except (InputError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"cannot resume: `{path}` is damaged", "pass `--discard` to start over"
        ) from error
    if (folder / DATA).is_symlink() or not (folder / DATA).is_dir():
        raise InputError(
            f"cannot resume: `{folder / DATA}` is no folder", "pass `--discard` to start over"
        )
    now = json.loads(expected)
    left["inputs"], now["inputs"] = (
        [[row[0] for row in rows] for rows in one["inputs"]] for one in (left, now)
    )
    found = first_difference(left, now)
    if found is not None:
        where, *values = found
        raise InputError(
            f"cannot resume: `{where}` has changed since `{folder}` was begun:"
            f" expected {_SHORT.repr(values[0])}, found {_SHORT.repr(values[1])}",
            "undo the change, or pass `--discard` to start over",
        )
    return changed_files(before, state.inputs)


def changed_files(before: list[list[tuple[Any, ...]]], now: InputRows) -> list[str]:
    """The files whose length, times, inode or device differ, of two lists of the same files."""
    pairs = zip(chain.from_iterable(before), chain.from_iterable(now), strict=True)
    return list(dict.fromkeys(new[0] for old, new in pairs if tuple(old) != tuple(new)))


# Long enough for a path, short enough for a list of all tensors.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 300


def first_difference(a: object, b: object, where: str = "") -> tuple[str, object, object] | None:
    """Where two JSON values differ first, and the values there.

    >>> first_difference({"k": [1, 2]}, {"k": [1, 3]})
    ('k[1]', 2, 3)
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            inside = f"{where}.{key}" if where else str(key)
            if key not in a or key not in b:
                return inside, a.get(key, "nothing"), b.get(key, "nothing")
            if found := first_difference(a[key], b[key], inside):
                return found
        return None
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            if found := first_difference(left, right, f"{where}[{number}]"):
                return found
        return None
    return None if a == b else (where, a, b)
