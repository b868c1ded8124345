"""The marker of publishing in steps, onto a mount point: what is moving there, and what may go."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mergeplan.errors import MergeplanError
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import PlainName
from mergeplan.merging.replacing import Seen
from mergeplan.merging.shards import RECORD_OF_SHARD
from mergeplan.merging.state import check_same
from mergeplan.merging.workfolder import JOURNAL, PUBLISHING, SHARDS
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
    """Whether a run of this very merge was stopped while it moved finished files.

    A marker alone does not say so: it may be left over, or anybody's. Every block must be in the
    journal, and what is said to be replaced is looked at once more.
    """
    marker = folder / PUBLISHING
    if marker.is_symlink() or not marker.is_file():
        return False
    try:
        load_marker(folder)
        check_same(folder, checked.state)
    except MergeplanError:
        return False
    shards = folder / SHARDS
    if shards.is_dir():
        names = [name for name, _, _ in checked.prepared.files]
        return all((shards / name / RECORD_OF_SHARD).is_file() for name in names)
    return checked.prepared.journal_is_whole(folder / JOURNAL)
