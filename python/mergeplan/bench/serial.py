"""What of a merge more cores do not make faster: start, plan, sync, publishing, and one writer.

Hashes are taken by the workers, block by block, and are no part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mergeplan.bench.processes import Run

# Phases of a merge in which one thread works.
_ALONE = ("plan", "sync", "publish")


@dataclass(frozen=True)
class Serial:
    """Seconds of a merge in which one thread works, medians of its runs.

    Attributes:
        start: Until planning begins, and after publishing: the interpreter and its imports.
    """

    start: float
    plan: float
    sync: float
    publish: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.start + self.plan + self.sync + self.publish


@dataclass(frozen=True)
class Bound:
    """What bounds merges of any method on any number of cores.

    Attributes:
        write: Seconds in which one thread writes one output: a file system lets one at a time write
            into a file. The merge computes meanwhile, but cannot take less.
        large_shape: A larger shape, which is planned and not merged.
        large_plan: Seconds of a whole process that plans a merge of it.
        large_factor: How many parameters it has for one of those that were merged.
    """

    write: float
    large_shape: str
    large_plan: float
    large_factor: float


def serial_of(runs: Sequence[Run]) -> Serial | None:
    """From the phases that the runs printed; `None` where one printed none."""
    if not all(run.phases for run in runs):
        return None
    found = {name: median(run.phases.get(name, 0.0) for run in runs) for name in _ALONE}
    start = median(run.seconds - sum(run.phases.values()) for run in runs)
    return Serial(start=start, **found)
