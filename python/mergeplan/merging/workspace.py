"""`OUT.partial`: where a merge works, what it leaves when it is stopped, and how it goes on.

OUT.partial/
  merge.json    what is being merged from what; a resumed run must be the same merge
  lock          held by the run that works here
  journal       the blocks that are written, with their hashes (rust/core/src/output/journal.rs)
  journal.inputs  a hash of all that each finished job read, by which changed inputs are told
  data/         the output; becomes OUT by one rename
  shards/       on a cluster, the work of each worker
  publishing    only where OUT is a mount point: the names of all files, which are moving there
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mergeplan.errors import MergeplanError, SurroundingsError
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.content import check_content, same_inputs
from mergeplan.merging.manifest import load_manifest
from mergeplan.merging.marker import is_publishing, load_marker, mark_publishing
from mergeplan.merging.publishing import is_in_steps, move_into, publish
from mergeplan.merging.replacing import Seen
from mergeplan.merging.state import check_same
from mergeplan.merging.workfolder import (
    DATA,
    JOURNAL,
    PUBLISHING,
    create_work,
    hold_work,
    refuse_foreign,
    remove_work,
    sweep,
)
from mergeplan.system.files import LOCK, creating, lock, sync_folder, walk
from mergeplan.system.reading import MANIFEST

# So often another run may be quicker.
_TRIES = 100


def partial_folder(out: Path) -> Path:
    """Where the work for `out` happens: a sibling, so that publishing is one rename.

    A mount point has its siblings on another disk: there the work happens inside.
    """
    if is_in_steps(out):
        return out / ".mergeplan.partial"
    return out.with_name(out.name + ".partial")


@dataclass(frozen=True)
class Workspace:
    """An open `OUT.partial`, locked against other runs.

    Attributes:
        before: What `out` held at the start, and may lose.
        resumed: Whether an earlier run left blocks in it.
        is_publishing: Whether all is complete and durable, and some files may be in `out` already.
    """

    out: Path
    folder: Path
    before: Seen
    resumed: bool
    is_publishing: bool
    lock: IO[str]

    @property
    def data(self) -> Path:
        return self.folder / DATA

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL

    def publish(self) -> Path | None:
        """Make the data durable, give it its name, and remove the rest; see `remove`."""
        if not self.is_publishing:
            for path in (*filter(Path.is_dir, walk(self.data)), self.data):
                sync_folder(path)
        if is_in_steps(self.out):
            if not self.is_publishing:
                mark_publishing(self.folder, self.data, self.before)
            marker = load_marker(self.folder)
            move_into(self.data, self.out, marker.names, marker.replaced)
        else:
            publish(self.data, self.out, self.before)
        with suppress(OSError):  # the output is there, whatever becomes of the rest
            return self.remove()
        return None

    def remove(self) -> Path | None:
        """Give the place up, with all in it that is ours; returns where the rest stays, if any."""
        return remove_work(self.folder, self.lock)

    def leave(self) -> bool:
        """Stop. What is worth continuing stays; returns whether anything is."""
        worth = self.journal.exists() and self.journal.stat().st_size > 0
        if worth or not self.folder.exists():
            self.lock.close()
        else:
            with suppress(OSError):
                self.remove()
        return worth


def check_leftover(out: Path, *, resume: bool, discard: bool) -> None:
    """Refuse to begin where something is in the way, unless an earlier run left it and it is said
    what to do with it.

    Raises:
        SurroundingsError: It is not ours, or in use, or neither is wanted.
    """
    folder = partial_folder(out)
    if not os.path.lexists(folder):
        return
    refuse_foreign(folder)
    if not (resume or discard):
        if (folder / LOCK).exists():
            lock(folder).close()
        raise SurroundingsError(
            f"an earlier run left `{folder}`",
            "pass `--resume` to go on from there, or `--discard` to start over",
        )


def open_workspace(checked: CheckedMerge, *, resume: bool, discard: bool) -> Workspace:
    """Begin in a fresh `OUT.partial`, or go on in the one that is there.

    Raises:
        InputError: It belongs to another merge; the message says what differs.
        SurroundingsError: It is in use, is not ours, cannot be created, or neither `resume` nor
            `discard` says what to do with it.
    """
    out, state = checked.out, checked.state
    folder = partial_folder(out)
    with creating(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        # Another run may make it, move it away or remove it at any moment.
        for _ in range(_TRIES):
            check_leftover(out, resume=resume, discard=discard)
            if not os.path.lexists(folder):
                if (held := create_work(folder, state.record(checked.written))) is not None:
                    return Workspace(out, folder, checked.before, False, False, held)
            elif not any(folder.iterdir()):
                folder.rmdir()
            elif (held := hold_work(folder)) is not None:
                # A run that was stopped before its first block has left nothing to go on with.
                if discard or not (folder / JOURNAL).exists():
                    Workspace(out, folder, {}, False, False, held).remove()
                    continue
                try:
                    if changed := check_same(folder, state):
                        check_content(folder, checked, changed)
                    publishing = is_publishing(folder, checked)
                    if not publishing:
                        (folder / PUBLISHING).unlink(missing_ok=True)
                except BaseException:
                    held.close()
                    raise
                return Workspace(out, folder, checked.before, True, publishing, held)
    raise SurroundingsError(
        f"other runs make and remove `{folder}` all the time", "wait, or choose another output"
    )


def remove_leftover(out: Path) -> None:
    """Remove what a run left that was stopped after publishing.

    Raises:
        SurroundingsError: Another run works there, or it holds what is not ours.
    """
    folder = partial_folder(out)
    sweep(folder.parent)
    if os.path.lexists(folder):
        refuse_foreign(folder)
        if (held := hold_work(folder)) is not None:
            Workspace(out, folder, {}, True, False, held).remove()


def is_published(checked: CheckedMerge) -> bool:
    """Whether `out` is this merge already, by its manifest: a run was stopped after publishing."""
    out, state = checked.out, checked.state
    if is_in_steps(out) and (partial_folder(out) / PUBLISHING).exists():
        return False  # the manifest may have moved before other files
    try:
        # Each tensor is named in the plan too.
        manifest = load_manifest(out, 4 * len(state.json()) + MANIFEST.most_bytes // 16)
    except MergeplanError:
        return False
    return (
        manifest.mergeplan_version == state.mergeplan_version
        and manifest.plan_sha256 == state.plan.sha256()
        and same_inputs(checked, manifest)
    )
