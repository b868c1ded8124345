"""Workers on a Ray cluster, each with a model of its own, to whom calls are handed out one by one.

Ray places the workers; the calls of lost ones go to the others. What a call gives is a function of
the call alone, so that it does not matter who makes it.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergeplan.calibration.identity import models_of
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.pool.pool import Pool
from mergeplan.system.files import sha256_of
from mergeplan.system.ray import (
    HeadLostError,
    check_large_enough,
    cpus_of_nodes,
    on_every_node,
    telling_of_ray,
)

# Where nothing is done for so long, lost nodes are looked for.
_LOOK_SECONDS = 5.0
# Workers that are lost so often, each of them, would be lost for ever: too little memory, say.
_MOST_LOSSES = 8

# What a worker does with a call's arguments, and what keeps it from the heavy ones; see `Crew`.
Job = tuple[Callable[..., Any], Exception | None]


def check_paths(ray: Any, pool: Pool, files: Sequence[Path] = ()) -> None:
    """Refuse a cluster of which a node does not see the pool as this process does.

    Args:
        files: That every node has to see too.

    Raises:
        InputError: A model or a text is missing or different there; the message names the node.
    """
    expected = _seen(pool, files)
    for address, found in on_every_node(ray, _seen, pool, files).items():
        for what, identity in expected.items():
            if found.get(what) != identity:
                raise InputError(
                    f"node `{address}` of the cluster does not see the same {what}",
                    "put the pool and its texts where every node finds them under the same path",
                )


def _seen(pool: Pool, files: Sequence[Path]) -> dict[str, Any]:
    """What a node finds under the pool's paths; times differ between copies, and do not count."""
    try:
        models = models_of(pool)
    except (InputError, OSError) as error:
        return {"models": str(error)}
    seen: dict[str, Any] = {
        name: [(file.name, file.stat[0], file.header, file.sha256) for file in files]
        for name, files in models.items()
    }
    texts = {f"texts of `{domain}`": path for domain, path in pool.data.items()}
    for what, path in (texts | {f"`{path}`": path for path in files}).items():
        seen[what] = sha256_of(path) if path.is_file() else None
    return seen


class _Worker:
    """A worker on some node.

    Attributes:
        node: Its id, once the worker has answered.
        fault: Why it makes no heavy call; `None` where it does.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.node: str | None = None
        self.fault: Exception | None = None


class Crew:
    """Makes calls on a cluster's workers, in any order.

    A worker gets a call once it has loaded its model, so that no call waits for one that finds no
    place; the call of a worker that is lost goes to the next one that is free. Ray could restart
    actors and repeat their calls, but on a cluster that has lost a node the restarted one waits for
    a CPU that the others never give back, and its call with it.

    Args:
        ray: See `mergeplan.system.ray.connect`.
        make: Called in each worker with `arguments` and the number of workers on its node; gives
            what does its calls, and what keeps it from heavy ones.
        threads: Of a worker.
        gpus: Whether workers are on GPUs, where there are some.
        most: Workers; `None` for as many as the cluster has room for.
    """

    def __init__(
        self,
        ray: Any,
        make: Callable[..., Job],
        arguments: Sequence[Any],
        *,
        threads: int,
        gpus: bool = True,
        most: int | None = None,
    ) -> None:
        self._ray, self._threads = ray, threads
        resources = ray.cluster_resources()
        n_gpus = int(resources.get("GPU", 0)) if gpus else 0
        count = n_gpus or max(1, int(resources.get("CPU", 1)) // threads)
        self.count = min(count, most or count)
        self._remote = ray.remote(
            num_cpus=threads, num_gpus=1 if n_gpus else 0, scheduling_strategy="SPREAD"
        )(_RemoteWorker)
        self._nodes = cpus_of_nodes(ray)
        slots = {node: max(1, cpus // threads) for node, cpus in self._nodes.items()}
        self._begin = make, tuple(arguments), _spread(self.count, slots)
        self._losses = 0
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        # By the call that is to end before there is one for them.
        self._busy: dict[Any, _Worker] = {}
        for _ in range(self.count):
            self._start()

    def each(
        self, calls: Sequence[Sequence[Any]], heavy: Collection[int] = ()
    ) -> Iterator[tuple[int, Any]]:
        """The number of each call and what it gave, as they are done.

        Args:
            calls: Arguments of each.
            heavy: Numbers of those that not every worker can make.

        Raises:
            SurroundingsError: So much was lost that nothing goes on, or no worker can make a call.
        """
        waiting = deque(range(len(calls)))
        working: dict[Any, tuple[_Worker, int]] = {}
        try:
            with telling_of_ray(self._ray):
                while waiting or working:
                    for worker, number in self._given(waiting, heavy):
                        working[worker.actor.do.remote(*calls[number])] = worker, number
                    ready, _ = self._ray.wait(self._awaited(working), timeout=_LOOK_SECONDS)
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
                        if own is not None:
                            self._losses = 0
                            yield own, found
                        elif worker.node is None:
                            worker.node, worker.fault = found
        except HeadLostError:
            self._workers.clear()  # nobody is left who could end them
            raise
        finally:
            self._busy |= {call: worker for call, (worker, _) in working.items()}

    def _given(self, waiting: deque[int], heavy: Collection[int]) -> Iterator[tuple[_Worker, int]]:
        """Idle workers, each with the first call that it can make; both are taken off."""
        for worker in list(self._idle):
            able = (n for n in waiting if worker.fault is None or n not in heavy)
            if (number := next(able, None)) is not None:
                waiting.remove(number)
                self._idle.remove(worker)
                yield worker, number

    def _awaited(self, working: Mapping[Any, Any]) -> list[Any]:
        """Calls to wait for.

        Raises:
            SurroundingsError: There are none: what is left is too heavy for everyone.
        """
        calls = [*working, *self._busy]
        faults = [one.fault for one in self._workers if one.fault is not None]
        if not calls and faults:
            raise faults[0]
        return calls

    def _start(self) -> None:
        worker = _Worker(self._remote.remote())
        self._workers.append(worker)
        self._busy[worker.actor.begin.remote(*self._begin)] = worker

    def _lose(self, worker: _Worker) -> None:
        """Start another one in its place.

        Raises:
            SurroundingsError: Workers were lost again and again.
        """
        self._workers.remove(worker)
        self._ray.kill(worker.actor)
        self._losses += 1
        if self._losses > _MOST_LOSSES * self.count:
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
        """End the workers."""
        for worker in self._workers:
            self._ray.kill(worker.actor)


def _spread(count: int, slots: Mapping[str, int]) -> dict[str, int]:
    """How many workers each node gets of so many, in turn.

    >>> _spread(5, {"small": 1, "large": 16})
    {'small': 1, 'large': 4}
    """
    given = dict.fromkeys(slots, 0)
    while count > 0 and (free := [node for node in slots if given[node] < slots[node]]):
        for node in free[:count]:
            given[node] += 1
        count -= len(free)
    return given


class _RemoteWorker:
    def begin(
        self, make: Callable[..., Job], arguments: Sequence[Any], shares: Mapping[str, int]
    ) -> tuple[str, Exception | None]:
        """Load the model; the id of the node where it is, and what keeps it from heavy calls."""
        import ray

        node: str = ray.get_runtime_context().get_node_id()
        self._do, fault = make(*arguments, max(shares.get(node, 1), 1))
        return node, fault

    def do(self, *arguments: Any) -> Any:
        return self._do(*arguments)
