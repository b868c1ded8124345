"""One output shard of a merge on a cluster: what its owner is given, does and leaves.

A worker merges a shard as a merge of its own, in a folder of its own, syncs it, moves it among the
output's files and leaves a record of its hashes. All nodes must see inputs and output under the
same paths.

Plans and records lie in that shared place too, `OUT.partial/shards/SHARD/`. Through Ray go names
and counts alone: what it carries for a task is the same whatever a model's size, its tensors and
its files. (When they went through Ray, and the whole merge's plan with each task, a merge of 960
tensors in 24 shards sent 5 MB, one of 91,000 in 140 shards would have sent some gigabytes.)
"""

import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from mergeplan.checkpoints.plan_models import cut_to
from mergeplan.config.methods import Method
from mergeplan.errors import MergeplanError, MissingInputError, SurroundingsError
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import Xxh3, stored_hashes
from mergeplan.merging.workfolder import RECORD as STATE
from mergeplan.merging.workfolder import SHARDS
from mergeplan.system.files import LOCK, lock, sync_folder
from mergeplan.system.reading import RECORD, read_text
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably

# What is said of a shard and of a whole merge, and adds up.
COUNTS = ("read_bytes", "table_tensors", "table_elements", "resumed_blocks")
RECORD_OF_SHARD = "record.json"
_PLAN, _INPUTS = "plan.json", "inputs.json"
# Ray ends the workers of a node that has lost the others only after a minute: until then such a
# worker may go on, and finish the shard.
_PREDECESSOR_SECONDS = 120.0
# A file system on the network may show a new name so late (`acdirmax` of NFS).
_LATE_SECONDS = 60.0

# What tells a run's folder from any other: inode, bytes and time of its record.
Run = tuple[int, int, int]


@dataclass(frozen=True)
class ShardRecord:
    """The shard is there, durable and whole.

    Attributes:
        hashes: Content hash of each of its tensors.
        inputs: Hash of all that each job read, by its tensor.
    """

    hashes: dict[str, Xxh3]
    inputs: dict[str, Xxh3]


def write_plans(one: CheckedMerge, folder: Path) -> None:
    """Give each shard's worker its part of the plan, and nodes what they have to see.

    Raises:
        SurroundingsError: The place where a worker is to work leads elsewhere.
    """
    plan, prepared = one.plan.data, one.prepared
    shard_of = {tensor: name for name, _, tensors in prepared.files for tensor in tensors}
    jobs = defaultdict(list)
    for job in plan.jobs:
        jobs[shard_of[next(iter(job.stored))]].append(job)
    for name, own in jobs.items():
        # `.bin` inputs and adapters list each tensor: whole lists in every shard would make the
        # plans of 3,000 tensors in 24 shards 32 MB, where that of the merge is 2.7 MB.
        read = {(one.model, one.tensor) for job in own for one in job.merge.references}
        models = cut_to(plan.models, read)
        part = replace(plan, models=models, jobs=tuple(own), max_shard_bytes=2**63)
        write_durably(_place(folder, name) / _PLAN, part.json(), replace=True)
    rows = [row for rows in prepared.identities for row in rows]
    seen = {str(path): (n_bytes, mtime) for path, n_bytes, mtime, *_ in rows}
    write_durably(folder / SHARDS / _INPUTS, json.dumps(seen), replace=True)


def _place(folder: Path, name: str) -> Path:
    """Where a shard's worker works."""
    own = folder / SHARDS / name
    for place in (own.parent, own):
        if place.is_symlink():
            raise SurroundingsError(f"`{place}` is a link", "pass `--discard` to start over")
        place.mkdir(exist_ok=True)
    return own


def lock_of(folder: Path, name: str) -> Path:
    """What a shard's worker holds while it works."""
    return folder / SHARDS / name / LOCK


def run_of(folder: Path) -> Run:
    """What tells this run's folder from that of any other.

    Raises:
        SurroundingsError: It is not there.
    """
    try:
        stat = (folder / STATE).stat()
    except OSError as error:
        raise SurroundingsError(f"cannot open `{folder}`: {error.strerror}") from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def unlike(folder: Path, run: Run) -> str | None:
    """The first path under which a node finds something else than the driver, or nothing.

    Args:
        run: What the driver has seen of `folder`.
    """
    try:
        if run_of(folder) != run:
            return str(folder)
        seen = json.loads(read_text(folder / SHARDS / _INPUTS, RECORD))
    except MergeplanError:
        return str(folder)
    for path, identity in seen.items():
        try:
            stat = Path(path).stat()
        except OSError:
            return str(path)
        if [stat.st_size, stat.st_mtime_ns] != identity:
            return str(path)
    return None


def record_of(folder: Path, name: str) -> ShardRecord:
    """What a shard's worker has left, which may not be seen everywhere at once.

    Raises:
        MissingInputError, InputError: It is not there, or damaged.
    """
    until = time.monotonic() + _LATE_SECONDS
    while True:
        try:
            return load_strictly(folder / SHARDS / name / RECORD_OF_SHARD, ShardRecord, RECORD)
        except MissingInputError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _check(folder: Path, run: Run) -> None:
    if run_of(folder) != run:
        raise SurroundingsError(f"`{folder}` is by now that of another run")


def _lock(own: Path) -> IO[str]:
    """Hold a shard's place, once whoever held it before has ended.

    Raises:
        SurroundingsError: It has not within the time after which Ray ends a node that is cut off.
    """
    until = time.monotonic() + _PREDECESSOR_SECONDS
    while True:
        try:
            return lock(own, "worker")
        except SurroundingsError as error:
            if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() > until:
                raise
        time.sleep(0.2)


def merge_shard(
    name: str, folder: Path, threads: int, memory_bytes: int, run: Run, method: Method | None = None
) -> dict[str, int]:
    """Merge one shard, unless a record says that it is there; runs on a worker.

    Args:
        run: What the driver has seen of `folder`: by now it may be that of another run.
        method: The config's. A worker that is sent one of the user's own has it.

    Returns:
        `COUNTS`; all else is in the record.

    Raises:
        SurroundingsError: The place where it works leads elsewhere, or another works there.
    """
    from mergeplan._native import PreparedMerge, content_hashes

    final = folder / "data" / name
    _check(folder, run)
    own = _place(folder, name)
    held = _lock(own)
    try:
        _check(folder, run)  # from here on nobody removes it
        record = own / RECORD_OF_SHARD
        if record.exists() and final.exists():
            left = load_strictly(record, ShardRecord, RECORD)
            if content_hashes(final, threads=threads) == left.hashes:
                return dict.fromkeys(COUNTS, 0) | {"resumed_blocks": len(left.hashes)}
        merged, journal = own / WEIGHTS_FILE, own / "journal"
        resume = journal.exists() and merged.exists()
        if not resume:
            # A worker that was killed may have left any of them: also that of what was read.
            for place in (merged, journal, journal.with_suffix(".inputs")):
                place.unlink(missing_ok=True)
        prepared = PreparedMerge(read_text(own / _PLAN, RECORD))
        done = prepared.run(
            own, journal=journal, threads=threads, memory_bytes=memory_bytes, resume=resume
        )
        hashes = stored_hashes(done["hashes"], prepared.files, own, threads)
        merged.replace(final)
        sync_folder(final.parent)
        left = ShardRecord(hashes, done["inputs"])
        write_durably(record, json.dumps(asdict(left)), replace=True)
        return {key: done[key] for key in COUNTS}
    finally:
        held.close()
