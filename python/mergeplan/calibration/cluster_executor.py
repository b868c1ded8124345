"""The sweep on a Ray cluster: one model for each worker, merges handed out one by one."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.crew import Crew
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import Worker
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge


class ClusterExecutor:
    """Measures the merges of one size on a cluster's workers, in any order.

    Args:
        ray: See `mergeplan.system.ray.connect`.
        setup: `threads` are those of one worker, 1 where it does not say.
    """

    def __init__(self, ray: Any, pool: Pool, size: int, setup: Setup) -> None:
        self._ray = ray
        threads = setup.threads or 1
        # A worker has another working folder than this process.
        tasks = tuple(str(Path(t).absolute()) if Path(t).is_file() else t for t in setup.tasks)
        arguments = pool, size, replace(setup, threads=threads, tasks=tasks)
        self._crew = Crew(ray, _measuring, arguments, threads=threads, gpus=setup.device != "cpu")
        self.close = self._crew.close

    def measure(
        self,
        merges: Sequence[SubsetMerge],
        some: Sequence[int],
        parts: Sequence[range | None] | None = None,
        slopes: Collection[int] = (),
    ) -> Iterator[MeasuredMerge]:
        """As `Worker.measure`, in the order in which the workers are done.

        Raises:
            InputError: A model or a text is at fault, or a merge does not fit the model.
            SurroundingsError: So much was lost that nothing goes on.
        """
        shared = self._ray.put(list(merges))
        calls = [(shared, number, parts, number in slopes) for number in some]
        for _, found in self._crew.each(calls):
            yield found


def _measuring(
    pool: Pool, size: int, setup: Setup, sharers: int
) -> tuple[Callable[..., MeasuredMerge], None]:
    worker = Worker(pool, size, replace(setup, sharers=sharers))

    def measure(
        merges: list[SubsetMerge],
        number: int,
        parts: Sequence[range | None] | None,
        slopes: bool,
    ) -> MeasuredMerge:
        with_slopes = [number] if slopes else []
        return next(worker.measure(merges, [number], parts, with_slopes))

    return measure, None
