"""The sweep on a Ray cluster: one model for each worker, merges handed out one by one.

Ray places the workers; the merges of lost ones go to the others. Measurements are a function of the
merge alone, so that it does not matter who makes them.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.identity import models_of
from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import Worker
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.files import sha256_of
from mergeplan.system.ray import (
    HeadLostError,
    check_large_enough,
    cpus_of_nodes,
    on_every_node,
    telling_of_ray,
)

# Where nothing is measured for so long, lost nodes are looked for.
_LOOK_SECONDS = 5.0
# Workers that are lost so often, each of them, would be lost for ever: too little memory, say.
_MOST_LOSSES = 8


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


class _Worker:
    """A worker on some node.

    Attributes:
        node: Its id, once the worker has answered.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.node: str | None = None


class ClusterExecutor:
    """Measures the merges of one size on a cluster's workers, in any order.

    A worker gets a merge once it has loaded its model, so that no merge waits for one that finds no
    place; the merge of a worker that is lost goes to the next one that is free. Ray could restart
    actors and repeat their calls, but on a cluster that has lost a node the restarted one waits for
    a CPU that the others never give back, and its merge with it.

    Args:
        ray: See `mergeplan.system.ray.connect`.
        setup: `threads` are those of one worker, 1 where it does not say.
    """

    def __init__(self, ray: Any, pool: Pool, size: int, setup: Setup) -> None:
        self._ray = ray
        self._threads = threads = setup.threads or 1
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if setup.device != "cpu" else 0
        self._count = gpus or max(1, int(resources.get("CPU", 1)) // threads)
        self._remote = ray.remote(num_cpus=threads, num_gpus=1 if gpus else 0)(_RemoteWorker)
        # A worker has another working folder than this process.
        tasks = tuple(str(Path(t).absolute()) if Path(t).is_file() else t for t in setup.tasks)
        self._arguments = pool, size, replace(setup, threads=threads, tasks=tasks)
        self._nodes = cpus_of_nodes(ray)
        self._losses = 0
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        # By the call that is to end before there is a merge for them.
        self._busy: dict[Any, _Worker] = {}
        for _ in range(self._count):
            self._start()

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
        waiting = deque(some)
        working: dict[Any, tuple[_Worker, int]] = {}
        try:
            with telling_of_ray(self._ray):
                while waiting or working:
                    while waiting and self._idle:
                        worker, number = self._idle.pop(), waiting.popleft()
                        call = worker.actor.measure.remote(shared, number, parts, number in slopes)
                        working[call] = worker, number
                    calls = [*working, *self._busy]
                    ready, _ = self._ray.wait(calls, timeout=_LOOK_SECONDS)
                    if not ready:
                        lost = self._on_lost_nodes(working)
                        waiting.extend(working.pop(call)[1] for call in lost)
                    for call in ready:
                        worker, own = working.pop(call, None) or (self._busy.pop(call), None)
                        try:
                            found = self._ray.get(call)
                        except self._ray.exceptions.RayActorError:
                            self._lose(worker)
                            waiting.extend([] if own is None else [own])
                            continue
                        self._idle.append(worker)
                        if own is None:
                            worker.node = worker.node or found
                        else:
                            self._losses = 0
                            yield found
        except HeadLostError:
            self._workers.clear()  # nobody is left who could end them
            raise
        finally:
            self._busy |= {call: worker for call, (worker, _) in working.items()}

    def _start(self) -> None:
        worker = _Worker(self._remote.remote())
        self._workers.append(worker)
        self._busy[worker.actor.begin.remote(*self._arguments)] = worker

    def _lose(self, worker: _Worker) -> None:
        """Start another one in its place.

        Raises:
            SurroundingsError: Workers were lost again and again.
        """
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        self._losses += 1
        if self._losses > _MOST_LOSSES * self._count:
            raise SurroundingsError(
                f"workers were lost {self._losses} times, and nothing measured between",
                "look whether the nodes have memory enough for a model on each worker;"
                " the same command goes on from what is measured",
            )
        self._start()

    def _on_lost_nodes(self, working: dict[Any, tuple[_Worker, int]]) -> list[Any]:
        """Give up workers on nodes that are lost; the calls of `working` that are lost with them.

        Ray takes a silent node for lost after a minute, but what such a node owes it goes on
        waiting for; see `merging.cluster_runner`.

        Raises:
            SurroundingsError: No node is left that is large enough.
        """
        before, self._nodes = self._nodes, cpus_of_nodes(self._ray)
        gone = before.keys() - self._nodes.keys()
        if not gone:
            return []
        check_large_enough(self._nodes, self._threads, "a worker")
        # Who has not answered yet may have begun there.
        lost = [worker for worker in self._workers if worker.node is None or worker.node in gone]
        self._idle = [worker for worker in self._idle if worker not in lost]
        self._busy = {call: worker for call, worker in self._busy.items() if worker not in lost}
        for worker in lost:
            self._lose(worker)
        return [call for call, (worker, _) in working.items() if worker in lost]

    def close(self) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)


class _RemoteWorker:
    def begin(self, pool: Pool, size: int, setup: Setup) -> str:
        """Load the model; the id of the node where it is."""
        import ray

        self._worker = Worker(pool, size, setup)
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def measure(
        self,
        merges: list[SubsetMerge],
        number: int,
        parts: Sequence[range | None] | None,
        slopes: bool,
    ) -> MeasuredMerge:
        with_slopes = [number] if slopes else []
        return next(self._worker.measure(merges, [number], parts, with_slopes))
