"""One merge on a Ray cluster: each output shard has one owner; see `shards` for what it does.

The driver writes each owner's part of the plan, what goes beside the weights, and publishes. Ray
repeats the shard of a lost worker, which goes on from the blocks that are there.
"""

import math
import time
from collections.abc import Collection, Iterable
from typing import Any

from mergeplan.errors import InputError
from mergeplan.merging.checked import CheckedMerges
from mergeplan.merging.runner import Result, add_shard, nothing_done
from mergeplan.merging.shards import lock_of, merge_shard, record_of, run_of, unlike, write_plans
from mergeplan.merging.workfolder import SHARDS, worker_locks
from mergeplan.merging.workspace import Workspace
from mergeplan.system.files import is_held
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress
from mergeplan.system.ray import (
    HeadLostError,
    check_large_enough,
    cpus_of_nodes,
    on_every_node,
    telling_of_ray,
)
from mergeplan.system.writing import write_durably

# A worker that was killed is gone within moments; one on a node that is lost may never be.
_PATIENCE_SECONDS = 20.0
# A shard whose worker is lost so often would be lost for ever: too little memory, say.
_RETRIES = 8
_LOOK_SECONDS = 5.0


class ClusterRunner:
    """Runs merges shard by shard; see `runner.Runner`.

    Args:
        ray: See `system.ray.connect`.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def __call__(
        self,
        checked: CheckedMerges,
        works: dict[int, Workspace],
        progress: Progress | None,
        watch: MemoryWatch,
    ) -> dict[int, Result]:
        """Merge into the data folders of `works`.

        Raises:
            InputError: A node does not see the inputs or the output; or as for a merge.
            SurroundingsError: Nodes were lost, and the merge cannot go on without them.
        """
        results = {}
        for number, work in works.items():
            one = checked.merges[number]
            shards = {name: length for name, length, _ in one.prepared.files}
            run = run_of(work.folder)
            write_plans(one, work.folder)
            self._check_nodes(work)
            threads = threads_for(cpus_of_nodes(self._ray).values(), len(shards), checked.threads)
            remote = self._ray.remote(num_cpus=threads, max_retries=_RETRIES)(merge_shard)
            rest = (work.folder, threads, checked.core_memory, run, one.config.method)
            with telling_of_ray(self._ray):
                tasks = _Tasks(self._ray, remote, rest, shards)
                results[number] = _collect(tasks, shards, work, progress)
        return results

    def _check_nodes(self, work: Workspace) -> None:
        found = on_every_node(self._ray, unlike, work.folder, run_of(work.folder))
        for address, path in found.items():
            if path is not None:
                raise InputError(
                    f"node `{address}` of the cluster does not see the same `{path}`",
                    "inputs and output must lie on a file system that all nodes share",
                )


def _collect(
    tasks: "_Tasks", shards: dict[str, int], work: Workspace, progress: Progress | None
) -> Result:
    result, done = nothing_done(), 0
    try:
        while tasks.left:
            for name, counts in tasks.ended():
                # The workspace is worth keeping from the first whole shard on.
                write_durably(work.journal, SHARDS, replace=True)
                add_shard(result, counts, record_of(work.folder, name))
                done += shards[name]
            if progress:
                progress(done, sum(shards.values()))
    except HeadLostError:
        raise  # Ray ends the workers too, and a run that resumes waits for each one's shard
    except BaseException:
        tasks.stop()
        raise
    return result


class _Tasks:
    """The shards that are still to come, each a task of Ray's.

    Ray repeats a task at once whose process has died, and after a minute it takes a silent node for
    lost. But for an answer that this node owes it goes on waiting, until gRPC gives the connection
    up, minutes later (measured: not within 55 s of the node's being off the list). So once a node
    is lost, each shard is asked for anew that nobody holds: at worst one is asked for twice, and
    the second worker finds the first one's record.

    Args:
        remote: What merges a shard, given its name and the `rest`.
    """

    def __init__(self, ray: Any, remote: Any, rest: tuple[Any, ...], names: Iterable[str]) -> None:
        self._ray, self._remote, self._rest = ray, remote, rest
        self._folder, self._threads = rest[:2]
        self._nodes, self._lost, self._looked = cpus_of_nodes(ray), -math.inf, time.monotonic()
        # Name, and when it was asked for.
        self.left: dict[Any, tuple[str, float]] = {}
        for name in names:
            self._ask(name)

    def _ask(self, name: str) -> None:
        self.left[self._remote.remote(name, *self._rest)] = name, time.monotonic()

    def ended(self) -> list[tuple[str, dict[str, int]]]:
        """Wait a moment; the shards that are there by now, with what their workers returned.

        Raises:
            SurroundingsError: No node is left that is large enough.
        """
        ready, _ = self._ray.wait(list(self.left), num_returns=1, timeout=0.2)
        if not ready and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        return [(self.left.pop(task)[0], self._ray.get(task)) for task in ready]

    def _look(self) -> None:
        self._looked = time.monotonic()
        nodes = cpus_of_nodes(self._ray)
        if self._nodes.keys() - nodes.keys():
            self._lost = time.monotonic()
        self._nodes = nodes
        check_large_enough(nodes, self._threads, "a shard")
        for task, (name, asked) in list(self.left.items()):
            if asked < self._lost and not is_held(lock_of(self._folder, name)):
                self._ray.cancel(task, force=True)
                del self.left[task]
                self._ask(name)

    def stop(self) -> None:
        """Stop what is left, and wait until no worker works any more: they write by paths, which
        the next run may give to other files."""
        for task in self.left:
            self._ray.cancel(task, force=True)
        until = time.monotonic() + _PATIENCE_SECONDS
        self._ray.wait(list(self.left), num_returns=len(self.left), timeout=_PATIENCE_SECONDS)
        while any(map(is_held, worker_locks(self._folder))) and time.monotonic() < until:
            time.sleep(0.02)


def threads_for(cpus: Collection[int], shards: int, most: int) -> int:
    """Threads of each shard, by which most of a cluster's CPUs have work.

    Args:
        cpus: Of each node.
        shards: How many there are to merge.
        most: What the user allows, which no node may have.

    >>> threads_for([16, 16, 2], shards=40, most=16)
    16
    >>> threads_for([8, 4, 4], shards=40, most=16)
    4
    """
    counts = range(1, most + 1)
    at_work = [threads * min(shards, sum(cpu // threads for cpu in cpus)) for threads in counts]
    # Of few more CPUs at work less comes than their workers take in memory.
    enough = 0.9 * max(at_work)
    return max(threads for threads, busy in zip(counts, at_work, strict=True) if busy >= enough)
