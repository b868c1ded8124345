"""The sweep on a Ray cluster: one model for each worker, merges handed out one by one.

Ray places the workers, restarts lost ones and hands their merges to the others; measurements are a
function of the merge alone, so that it does not matter who makes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.identity import models_of
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import Worker
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.files import sha256_of
from mergeplan.system.ray import on_every_node, telling_of_ray


def check_paths(ray: Any, pool: Pool) -> None:
    """Refuse a cluster of which a node does not see the pool as this process does.

    Raises:
        InputError: A model or a text is missing or different there; the message names the node.
    """
    expected = _seen(pool)
    for address, found in on_every_node(ray, _seen, pool).items():
        for what, identity in expected.items():
            if found.get(what) != identity:
                raise InputError(
                    f"node `{address}` of the cluster does not see the same {what}",
                    "put the pool and its texts where every node finds them under the same path",
                )


def _seen(pool: Pool) -> dict[str, Any]:
    """What a node finds under the pool's paths; times differ between copies, and do not count."""
    try:
        models = models_of(pool)
    except (InputError, OSError) as error:
        return {"models": str(error)}
    seen: dict[str, Any] = {
        name: [(file.name, file.stat[0], file.header, file.sha256) for file in files]
        for name, files in models.items()
    }
    for domain, path in pool.data.items():
        seen[f"texts of `{domain}`"] = sha256_of(path) if path.is_file() else None
    return seen


class ClusterExecutor:
    """Measures the merges of one size on a cluster's workers, in any order.

    Args:
        ray: See `mergeplan.system.ray.connect`.
        setup: `threads` are those of one worker, 1 where it does not say.

    Raises:
        InputError: A model or a text is at fault.
    """

    def __init__(self, ray: Any, pool: Pool, size: int, setup: Setup) -> None:
        self._ray = ray
        threads = setup.threads or 1
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if setup.device != "cpu" else 0
        count = gpus or max(1, int(resources.get("CPU", 1)) // threads)
        # Ray restarts a worker that is lost, and repeats what it was doing.
        remote = ray.remote(
            num_cpus=threads, num_gpus=1 if gpus else 0, max_restarts=-1, max_task_retries=-1
        )(_RemoteWorker)
        # A worker has another working folder than this process.
        tasks = tuple(str(Path(t).absolute()) if Path(t).is_file() else t for t in setup.tasks)
        one = replace(setup, threads=threads, tasks=tasks)
        self.workers = [remote.remote(pool, size, one) for _ in range(count)]

    def measure(
        self,
        merges: Sequence[SubsetMerge],
        some: Sequence[int],
        parts: Sequence[range | None] | None = None,
    ) -> Iterator[MeasuredMerge]:
        """As `Worker.measure`, in the order in which the workers are done.

        Raises:
            InputError: A merge does not fit the model, or its inputs are at fault.
        """
        from ray.util import ActorPool

        shared = self._ray.put(list(merges))
        pool = ActorPool(self.workers)
        with telling_of_ray(self._ray):
            yield from pool.map_unordered(
                lambda worker, number: worker.measure.remote(shared, number, parts), list(some)
            )

    def close(self) -> None:
        for worker in self.workers:
            self._ray.kill(worker)


class _RemoteWorker:
    def __init__(self, pool: Pool, size: int, setup: Setup) -> None:
        self._worker = Worker(pool, size, setup)

    def measure(
        self, merges: list[SubsetMerge], number: int, parts: Sequence[range | None] | None
    ) -> MeasuredMerge:
        return next(self._worker.measure(merges, [number], parts))
