"""What merges into open workspaces: the core, or whatever takes its place."""

from collections.abc import Callable
from typing import Any

from mergeplan.merging.checked import CheckedMerges
from mergeplan.merging.workspace import Workspace
from mergeplan.system.files import allow_open_files
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress

# What is said of a merge: `read_bytes`, `resumed_blocks`, `sync_seconds`, `hashes`, `inputs`; of
# one on devices `device_bytes`, `peak_vram_bytes` and `warnings` too.
Result = dict[str, Any]
# Merges into the data folders of some workspaces, by number of the merge.
Runner = Callable[
    [CheckedMerges, dict[int, Workspace], Progress | None, MemoryWatch], dict[int, Result]
]


def run_here(
    checked: CheckedMerges,
    works: dict[int, Workspace],
    progress: Progress | None,
    watch: MemoryWatch,
) -> dict[int, Result]:
    """Merge by the core, all of them in one pass; see `Runner`."""
    written = sum(len(checked.merges[number].prepared.files) for number in works)
    inputs = {file for one in checked.merges for c in one.plan.checkpoints for file in c.files}
    allow_open_files(3 * len(works) + written + len(inputs))

    def report(done: int) -> None:
        watch.sample()
        if progress:
            progress(done, checked.work_bytes)

    done = checked.family.run(
        [(number, work.data, work.journal, work.resumed) for number, work in works.items()],
        threads=checked.threads,
        memory_bytes=checked.core_memory,
        progress=report,
    )
    watch.sample()
    return dict(zip(works, done, strict=True))
