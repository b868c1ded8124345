"""A run on a Ray cluster: the domains of a point, and points that do not wait for each other, are
measured side by side.

Each worker has the model, all texts, and the experts' files open. What a domain's slopes are does
not depend on who takes them, nor on the domains that are taken with it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mergeplan.calibration.crew import Crew, check_paths
from mergeplan.errors import SurroundingsError
from mergeplan.pool.pool import Pool
from mergeplan.system.ray import connect
from mergeplan.tuning.measuring import Measuring
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.prepared import Prepared, prepare
from mergeplan.tuning.tasks import GRADIENT, Done, Task


class ClusterMeasuring:
    """Workers on a cluster, at most one for each domain and one for the accepting documents.

    Args:
        address: See `mergeplan.system.ray.connect`.

    Raises:
        InputError: A node does not see the pool, or a model or a text is at fault.
        SurroundingsError: No worker has memory enough for gradients.
    """

    def __init__(self, address: str, prepared: Prepared, options: TuneOptions) -> None:
        ray = connect(address)
        one = replace(prepared.pool, sizes=(prepared.pool.sizes[prepared.size],))
        check_paths(ray, one, options.beside)
        threads = options.setup.threads or 1
        there = replace(options, setup=replace(options.setup, threads=threads))
        self._crew = Crew(
            ray,
            _measuring,
            (prepared.pool, there, Path.cwd()),
            threads=threads,
            gpus=options.setup.device != "cpu",
            most=len(prepared.texts.gradient.domains) + 1,
        )
        self.count, self.close = self._crew.count, self._crew.close
        try:
            # Before there is a folder: what has no room anywhere.
            for _ in self._crew.each([(None,)], heavy=[0]):
                pass
        except BaseException:
            self.close()
            raise

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Done]]:
        """As `Measuring.each`, in the order in which the workers are done.

        Raises:
            SurroundingsError: So much was lost that nothing goes on.
        """
        heavy = [number for number, task in enumerate(tasks) if task.part == GRADIENT]
        return self._crew.each([(task,) for task in tasks], heavy)


def _measuring(
    pool: Pool, options: TuneOptions, folder: Path, sharers: int
) -> tuple[Callable[[Task | None], Done | None], SurroundingsError | None]:
    # A worker begins in another folder, and paths in a YAML may be relative.
    with suppress(OSError):
        os.chdir(folder)
    measuring = Measuring(prepare(pool, options), replace(options.setup, sharers=sharers))
    fault = None
    try:
        measuring.meter  # noqa: B018
    except SurroundingsError as error:
        fault = error  # it only scores
    return lambda task: None if task is None else measuring.do(task), fault
