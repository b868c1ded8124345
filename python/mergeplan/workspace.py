"""`OUT.partial`: where a merge works, what it leaves when it is stopped, and how it goes on.

OUT.partial/
  merge.json    what is being merged from what; a resumed run must be the same merge
  journal       the blocks that are written, with their hashes (rust/core/src/journal.rs)
  data/         the output; becomes OUT by one rename
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mergeplan import __version__
from mergeplan.companions import Inputs, plan_hash
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.output import publish, sync_folder, write_durably

STATE_VERSION = 1


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
        resumed: Whether an earlier run left it.
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

    def publish(self) -> None:
        """Make the data durable, give it its name, and remove the rest."""
        sync_folder(self.data)
        publish(self.data, self.out)
        self.lock.close()
        shutil.rmtree(self.folder)

    def leave(self) -> bool:
        """Stop. What is worth continuing stays; returns whether anything is."""
        worth = self.journal.exists() and self.journal.stat().st_size > 0
        self.lock.close()
        if not worth:
            shutil.rmtree(self.folder, ignore_errors=True)
        return worth


def merge_state(plan: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """What makes a merge this merge: version, plan, and each input's path, bytes and mtime (ns)."""
    return {
        "state_version": STATE_VERSION,
        "mergeplan_version": __version__,
        "inputs": [[list(row) for row in rows] for rows in inputs],
        "plan": plan,
    }


def check_leftover(out: Path, *, resume: bool, discard: bool) -> None:
    """Refuse to begin where an earlier run left something, unless told what to do with it.

    Raises:
        SurroundingsError: There is something, and neither is wanted.
    """
    folder = partial_folder(out)
    if folder.exists() and not (resume or discard):
        raise SurroundingsError(
            f"an earlier run left `{folder}`",
            "pass `--resume` to go on from there, or `--discard` to start over",
        )


def open_workspace(out: Path, state: dict[str, Any], *, resume: bool, discard: bool) -> Workspace:
    """Begin in a fresh `OUT.partial`, or go on in the one that is there.

    Raises:
        InputError: It belongs to another merge; the message says what differs.
        SurroundingsError: It is in use, cannot be created, or neither `resume` nor `discard` says
            what to do with it.
    """
    folder = partial_folder(out)
    check_leftover(out, resume=resume, discard=discard)
    if folder.exists() and discard:
        _lock(folder / "merge.json").close()
        shutil.rmtree(folder)
    if folder.exists():
        lock = _lock(folder / "merge.json")
        _check_same(folder / "merge.json", state)
        return Workspace(out, folder, (folder / "journal").exists(), lock)
    try:
        (folder / "data").mkdir(parents=True)
        write_durably(folder / "merge.json", json.dumps(state))
    except OSError as error:
        raise SurroundingsError(f"cannot create `{folder}`: {error.strerror}") from error
    return Workspace(out, folder, False, _lock(folder / "merge.json"))


def is_published(out: Path, state: dict[str, Any]) -> bool:
    """Whether `out` is this merge already, by its manifest: a run was stopped after publishing."""
    try:
        manifest = json.loads((out / "mergeplan_manifest.json").read_text("utf-8"))
        inputs = [
            [[file["path"], file["bytes"], file["mtime_ns"]] for file in model["files"]]
            for model in manifest["inputs"]
        ]
        return bool(
            manifest["plan_sha256"] == plan_hash(state["plan"])
            and manifest["mergeplan_version"] == state["mergeplan_version"]
            and inputs == state["inputs"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lock(path: Path) -> IO[str]:
    """Hold a file while this process lives, so that no two runs write to one place."""
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise SurroundingsError(
            f"cannot open `{path}`: {error.strerror}", "pass `--discard` to start over"
        ) from error
    try:
        import fcntl
    except ImportError:  # Windows refuses to remove a file that is open, which serves as well
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise SurroundingsError(
            f"another merge is working in `{path.parent}`", "wait for it, or choose another output"
        ) from error
    except OSError:
        pass  # a file system without locks
    return file


def _check_same(path: Path, state: dict[str, Any]) -> None:
    try:
        left = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot resume: `{path}` is damaged", "pass `--discard` to start over"
        ) from error
    found = first_difference(left, json.loads(json.dumps(state)))
    if found is not None:
        where, before, now = found
        raise InputError(
            f"cannot resume: `{where}` has changed since `{path.parent}` was begun:"
            f" expected {before}, found {now}",
            "undo the change, or pass `--discard` to start over",
        )


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
