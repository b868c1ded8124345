"""Inputs that look changed, by their length, times, inode or device: their content decides."""

from dataclasses import astuple
from pathlib import Path

from mergeplan.errors import InputError
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import Manifest, content_of_inputs
from mergeplan.merging.shards import RECORD_OF_SHARD, ShardRecord
from mergeplan.merging.state import changed_files
from mergeplan.merging.workfolder import JOURNAL, RECORD, SHARDS
from mergeplan.system.files import LOCK, clear_folder, lock
from mergeplan.system.machine import worker_threads
from mergeplan.system.reading import RECORD as RECORD_FILE
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably


def check_content(folder: Path, checked: CheckedMerge, changed: list[str]) -> None:
    """Check that what an earlier run read is what it would read now, and let it go on from there.

    Each job left a hash of all that it read once it was done. What was not done is done anew: its
    statistics may be of another content. The record then names the files as they are now.

    Args:
        changed: Input files that look changed.

    Raises:
        InputError: The content of some has changed.
    """
    prepared = checked.prepared
    shards = folder / SHARDS
    journal = folder / JOURNAL
    before = _of_shards(shards) if shards.is_dir() else prepared.recorded_inputs(journal)
    now = prepared.input_hashes(list(before), worker_threads())
    for tensor, hash_ in before.items():
        if now.get(tensor) != hash_:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise InputError(
                f"cannot resume: what tensor `{tensor}` is merged from has changed since `{folder}`"
                f" was begun, in `{changed[0]}`{more}",
                "undo the change, or pass `--discard` to start over",
            )
    if not shards.is_dir():
        prepared.keep_in_journal(journal, list(before))
    write_durably(folder / RECORD, checked.state.record(checked.written), replace=True)


def _of_shards(shards: Path) -> dict[str, str]:
    """What the workers of a cluster have read; a shard without a record begins anew."""
    before: dict[str, str] = {}
    for shard in shards.iterdir():
        record = shard / RECORD_OF_SHARD
        if record.is_file():
            before |= load_strictly(record, ShardRecord, RECORD_FILE).inputs
        elif shard.is_dir():
            with lock(shard, "worker"):
                clear_folder(shard, keep=(LOCK,))
    return before


def same_inputs(checked: CheckedMerge, manifest: Manifest) -> bool:
    """Whether a manifest is of these inputs, which are read where they look changed."""
    before = [[astuple(file) for file in model.files] for model in manifest.inputs]
    now = checked.state.inputs
    if [[row[0] for row in rows] for rows in before] != [[row[0] for row in rows] for rows in now]:
        return False
    if not changed_files(before, now):
        return True
    if manifest.inputs_sha256 is None:
        return False
    jobs = [job.tensor for job in checked.plan.data.jobs]
    read = checked.prepared.input_hashes(jobs, worker_threads())
    return content_of_inputs(read) == manifest.inputs_sha256
