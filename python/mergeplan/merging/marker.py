"""The marker of publishing in steps, onto a mount point: what is moving there, and what may go."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from mergeplan.errors import MergeplanError
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import NAME as MANIFEST
from mergeplan.merging.manifest import PlainName, load_manifest
from mergeplan.merging.publishing import is_in_steps
from mergeplan.merging.replacing import Seen
from mergeplan.merging.shards import RECORD_OF_SHARD
from mergeplan.merging.state import check_same
from mergeplan.merging.workfolder import DATA, JOURNAL, PUBLISHING, SHARDS
from mergeplan.system.files import sync_folder
from mergeplan.system.reading import RECORD
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably


@dataclass(frozen=True)
class Marker:
    """What a run was publishing.

    Attributes:
        names: All files and folders that the output is to have.
        replaced: What the output held when the run began, and may lose.
    """

    names: tuple[PlainName, ...]
    replaced: Seen


def mark_publishing(folder: Path, data: Path, before: Seen) -> None:
    """Note that all is complete and durable, and is about to move."""
    names = tuple(sorted(path.name for path in data.iterdir()))
    write_durably(folder / PUBLISHING, json.dumps(asdict(Marker(names, before))), replace=True)
    sync_folder(folder)


def load_marker(folder: Path) -> Marker:
    """Read the marker of a work folder.

    Raises:
        InputError: It is damaged.
    """
    return load_strictly(folder / PUBLISHING, Marker, RECORD)


def is_publishing(folder: Path, checked: CheckedMerge) -> bool:
    """Whether a run of this very merge was stopped while it moved finished files, in steps.

    A marker alone does not say so: it may be left over, or anybody's. Every block must be in the
    journal, every file of weights must be there, and the manifest, which is written last; and what
    is said to be replaced is looked at once more.
    """
    marker = folder / PUBLISHING
    if not is_in_steps(checked.out) or marker.is_symlink() or not marker.is_file():
        return False
    try:
        names = load_marker(folder).names
        check_same(folder, checked.state)
        of_this = any(_is_of(place, checked) for place in (folder / DATA, checked.out))
    except MergeplanError:
        return False
    files = checked.prepared.files
    places = [folder / DATA, checked.out]
    if not all(any(os.path.lexists(place / name) for place in places) for name in names):
        return False
    if not (of_this and all(name in names and _is_there(places, name, n) for name, n, _ in files)):
        return False
    shards = folder / SHARDS
    if shards.is_dir():
        return all((shards / name / RECORD_OF_SHARD).is_file() for name, _, _ in files)
    return checked.prepared.journal_is_whole(folder / JOURNAL)


def _is_of(place: Path, checked: CheckedMerge) -> bool:
    """Whether a folder has the manifest of this merge."""
    if not (place / MANIFEST).is_file():
        return False
    return load_manifest(place).plan_sha256 == checked.state.plan.sha256()


def _is_there(places: list[Path], name: str, length: int) -> bool:
    """Whether one of two folders has a file of that name, and the first of them the right one."""
    found = next(
        (path for path in (place / name for place in places) if os.path.lexists(path)), None
    )
    return (
        found is not None
        and not found.is_symlink()
        and found.is_file()
        and found.stat().st_size == length
    )
