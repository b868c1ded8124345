"""What merges into open workspaces: the core, or whatever takes its place."""

from collections.abc import Callable
from typing import Any

from mergeplan.merging.checked import CheckedMerges
from mergeplan.merging.shards import (
    COUNTS,
    ShardRecord,
    merge_shard,
    record_of,
    run_of,
    write_plans,
)
from mergeplan.merging.workfolder import SHARDS
from mergeplan.merging.workspace import Workspace
from mergeplan.system.files import MOST_KEPT_OPEN, allow_open_files, kept_open, most_open_files
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress

# What is said of a merge: `COUNTS`, `sync_seconds`, `hashes`, `inputs`; of one on devices
# `device_bytes`, `peak_vram_bytes` and `warnings` too, and nothing of tables.
Result = dict[str, Any]
# Merges into the data folders of some workspaces, by number of the merge.
Runner = Callable[
    [CheckedMerges, dict[int, Workspace], Progress | None, MemoryWatch], dict[int, Result]
]


# Open from a merge's start to its end: its lock and two journals.
FILES_PER_MERGE = 3
# What the process has open beside merges and their inputs, and a few of the outputs.
RESERVED_FILES = 32
_OUTPUTS = 8


def files_needed(inputs: int, threads: int, before: int) -> int:
    """How many files must be allowed to be open for one merge of so many input files.

    Beside inputs and the merge's own: an output, which each thread and whoever syncs it may open
    again, an input that each thread and whoever reads ahead may, and one that is read for a moment.
    Of inputs a quarter of what is allowed stays open.

    Args:
        before: Open already.
    """
    others = before + FILES_PER_MERGE + 2 * threads + 4
    return others + min(inputs, MOST_KEPT_OPEN, others // 3 + 1)


def output_files(checked: CheckedMerges, works: dict[int, Workspace]) -> int:
    """Raise the limit on open files, if need be; how many of the outputs may be open at a time."""
    written = sum(len(checked.merges[number].prepared.files) for number in works)
    inputs = {file for one in checked.merges for c in one.plan.checkpoints for file in c.files}
    always = FILES_PER_MERGE * len(works) + kept_open(len(inputs))
    allow_open_files(always + written)
    most = most_open_files()
    left = written if most is None else most - always - (RESERVED_FILES - _OUTPUTS)
    return max(1, min(left, written))


def run_here(
    checked: CheckedMerges,
    works: dict[int, Workspace],
    progress: Progress | None,
    watch: MemoryWatch,
) -> dict[int, Result]:
    """Merge by the core, all of them in one pass; see `Runner`."""

    def report(done: int) -> None:
        watch.sample()
        if progress:
            progress(done, checked.work_bytes)

    spread = {number: work for number, work in works.items() if (work.folder / SHARDS).is_dir()}
    done = {number: _go_on(checked, number, work, report) for number, work in spread.items()}
    begun = {number: work for number, work in works.items() if number not in spread}
    if begun:
        results = checked.family.run(
            [(number, work.data, work.journal, work.resumed) for number, work in begun.items()],
            threads=checked.threads,
            memory_bytes=checked.core_memory,
            open_files=output_files(checked, works),
            progress=report,
        )
        done |= zip(begun, results, strict=True)
    watch.sample()
    return done


def _go_on(
    checked: CheckedMerges, number: int, work: Workspace, report: Callable[[int], None]
) -> Result:
    """Finish here what a cluster has begun: shard by shard, each with all threads."""
    one = checked.merges[number]
    write_plans(one, work.folder)
    run, result, done = run_of(work.folder), nothing_done(), 0
    written = sum(length for _, length, _ in one.prepared.files)
    for name, length, _ in one.prepared.files:
        counts = merge_shard(name, work.folder, checked.threads, checked.core_memory, run)
        add_shard(result, counts, record_of(work.folder, name))
        done += length
        report(checked.work_bytes * done // max(written, 1))
    return result


def nothing_done() -> Result:
    """What is said of a merge before its first shard."""
    return {
        **dict.fromkeys(COUNTS, 0),
        **{"sync_seconds": 0.0, "hashes": {}, "inputs": {}},
    }


def add_shard(result: Result, counts: dict[str, int], record: ShardRecord) -> None:
    """Add what is said of a shard to what is said of its merge."""
    for key, count in counts.items():
        result[key] += count
    result["hashes"] |= record.hashes
    result["inputs"] |= record.inputs
