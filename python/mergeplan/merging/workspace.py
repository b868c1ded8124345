"""`OUT.partial`: where a merge works, what it leaves when it is stopped, and how it goes on.

OUT.partial/
  merge.json    what is being merged from what; a resumed run must be the same merge
  lock          held by the run that works here
  journal       the blocks that are written, with their hashes (rust/core/src/output/journal.rs)
  data/         the output; becomes OUT by one rename
  publishing    only where OUT is a mount point: the names of all files, which are moving there
"""

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from reprlib import Repr
from typing import IO

from mergeplan._native import __version__
from mergeplan.errors import InputError, MergeplanError, SurroundingsError
from mergeplan.merging.manifest import InputRows, PlainName, load_manifest
from mergeplan.merging.publishing import move_into, publish
from mergeplan.planning.document import Plan, to_json
from mergeplan.system.files import LOCK, clear_folder, creating, lock, sync_folder
from mergeplan.system.reading import RECORD
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably

STATE_VERSION = 1
STATE, PUBLISHING = "merge.json", "publishing"


def partial_folder(out: Path) -> Path:
    """Where the work for `out` happens: a sibling, so that publishing is one rename.

    A mount point has its siblings on another disk: there the work happens inside.
    """
    if os.path.ismount(out):
        return out / ".mergeplan.partial"
    return out.with_name(out.name + ".partial")


@dataclass(frozen=True)
class Workspace:
    """An open `OUT.partial`, locked against other runs.

    Attributes:
        resumed: Whether an earlier run left blocks in it.
    """

    out: Path
    folder: Path
    resumed: bool
    lock: IO[str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def is_publishing(self) -> bool:
        """Whether all is complete and durable, and some files may be in `out` already."""
        return is_publishing(self.out)

    def publish(self) -> None:
        """Make the data durable, give it its name, and remove the rest."""
        if not self.is_publishing:
            for path in (*filter(Path.is_dir, self.data.rglob("*")), self.data):
                sync_folder(path)
        if os.path.ismount(self.out):
            marker = self.folder / PUBLISHING
            if not self.is_publishing:
                names = sorted(path.name for path in self.data.iterdir())
                write_durably(marker, json.dumps(names), replace=True)
                sync_folder(self.folder)
            move_into(
                self.data, self.out, list(load_strictly(marker, tuple[PlainName, ...], RECORD))
            )
        else:
            publish(self.data, self.out)
        self.remove()

    def remove(self) -> None:
        """Give the place up, with all that is in it."""
        if os.name == "nt":
            self.lock.close()  # there a file that is open cannot be removed
        shutil.rmtree(self.folder)
        self.lock.close()

    def leave(self) -> bool:
        """Stop. What is worth continuing stays; returns whether anything is."""
        worth = self.journal.exists() and self.journal.stat().st_size > 0
        if worth or not self.folder.exists():
            self.lock.close()
        else:
            with suppress(OSError):
                self.remove()
        return worth


@dataclass(frozen=True)
class MergeState:
    """What makes a merge this merge.

    Attributes:
        inputs: Of each stored model path, bytes and mtime in nanoseconds of its files.
    """

    plan: Plan
    inputs: InputRows
    mergeplan_version: str = __version__
    state_version: int = STATE_VERSION

    def json(self) -> str:
        return to_json(self)


def check_leftover(out: Path, *, resume: bool, discard: bool) -> None:
    """Refuse to begin where an earlier run left something, unless told what to do with it.

    Raises:
        SurroundingsError: There is something, and neither is wanted.
    """
    folder = partial_folder(out)
    if folder.exists() and not (resume or discard):
        lock(folder).close()
        raise SurroundingsError(
            f"an earlier run left `{folder}`",
            "pass `--resume` to go on from there, or `--discard` to start over",
        )


def open_workspace(out: Path, state: MergeState, *, resume: bool, discard: bool) -> Workspace:
    """Begin in a fresh `OUT.partial`, or go on in the one that is there.

    Raises:
        InputError: It belongs to another merge; the message says what differs.
        SurroundingsError: It is in use, cannot be created, or neither `resume` nor `discard` says
            what to do with it.
    """
    from mergeplan._native import fault

    folder = partial_folder(out)
    check_leftover(out, resume=resume, discard=discard)
    with creating(folder):
        folder.mkdir(parents=True, exist_ok=resume or discard)
        held = lock(folder)
        # A run that was stopped before its first block has left nothing to go on with.
        begun = (folder / "journal").exists() or (folder / PUBLISHING).exists()
        if begun and not discard:
            try:
                _check_same(folder, state)
            except BaseException:
                held.close()
                raise
            return Workspace(out, folder, True, held)
        work = Workspace(out, folder, False, held)
        try:
            clear_folder(folder, keep=(LOCK,))
            fault("begin")
            work.data.mkdir()
            write_durably(folder / STATE, state.json(), replace=True)
        except BaseException:
            work.leave()
            raise
    return work


def remove_leftover(out: Path) -> None:
    """Remove what a run left that was stopped after publishing.

    Raises:
        SurroundingsError: Another run works there.
    """
    folder = partial_folder(out)
    if folder.exists():
        Workspace(out, folder, True, lock(folder)).remove()


def is_publishing(out: Path) -> bool:
    """Whether a run was stopped while it moved finished files onto a mount point."""
    return (partial_folder(out) / PUBLISHING).exists()


def is_published(out: Path, state: MergeState) -> bool:
    """Whether `out` is this merge already, by its manifest: a run was stopped after publishing."""
    if is_publishing(out):
        return False  # the manifest may have moved before other files
    try:
        manifest = load_manifest(out)
    except MergeplanError:
        return False
    inputs = [[astuple(file) for file in model.files] for model in manifest.inputs]
    return (
        manifest.mergeplan_version == state.mergeplan_version
        and inputs == state.inputs
        and manifest.plan_sha256 == state.plan.sha256()
    )


def _check_same(folder: Path, state: MergeState) -> None:
    path = folder / STATE
    try:
        left = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"cannot resume: `{path}` is damaged", "pass `--discard` to start over"
        ) from error
    if (folder / "data").is_symlink() or not (folder / "data").is_dir():
        raise InputError(
            f"cannot resume: `{folder / 'data'}` is no folder", "pass `--discard` to start over"
        )
    found = first_difference(left, json.loads(state.json()))
    if found is not None:
        where, before, now = found
        raise InputError(
            f"cannot resume: {_named(where, state)} has changed since `{folder}` was begun:"
            f" expected {_SHORT.repr(before)}, found {_SHORT.repr(now)}",
            "undo the change, or pass `--discard` to start over",
        )


# Long enough for a path, short enough for a list of all tensors.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 300


def _named(where: str, state: MergeState) -> str:
    """A place in the state, in words where it is an input file."""
    place = re.fullmatch(r"inputs\[(\d+)\]\[(\d+)\]\[([12])\]", where)
    if place is None:
        return f"`{where}`"
    model, file, column = map(int, place.groups())
    word = ("length in bytes", "time of change (ns)")[column - 1]
    return f"the {word} of input `{state.inputs[model][file][0]}`"


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
