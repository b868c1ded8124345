"""One merge on a Ray cluster: each output shard has one owner; see `shards` for what it does.

The driver writes each owner's part of the plan, what goes beside the weights, and publishes. Ray
repeats the shard of a lost worker, which goes on from the blocks that are there.
"""

import time
from pathlib import Path
from typing import Any

from mergeplan.errors import InputError, SurroundingsError
from mergeplan.merging.checked import CheckedMerges
from mergeplan.merging.runner import Result
from mergeplan.merging.shards import merge_shard, record_of, run_of, unlike, write_plans
from mergeplan.merging.workfolder import SHARDS, worker_locks
from mergeplan.merging.workspace import Workspace
from mergeplan.system.files import is_held
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress
from mergeplan.system.ray import cpus_of_nodes, on_every_node, telling_of_ray
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
            threads = threads_for(cpus_of_nodes(self._ray), len(shards), checked.threads)
            remote = self._ray.remote(num_cpus=threads, max_retries=_RETRIES)(merge_shard)
            tasks = {
                remote.remote(name, work.folder, threads, checked.core_memory, run): name
                for name in shards
            }
            with telling_of_ray(self._ray):
                results[number] = self._collect(tasks, shards, work, threads, progress)
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
        self,
        tasks: dict[Any, str],
        shards: dict[str, int],
        work: Workspace,
        threads: int,
        progress: Progress | None,
    ) -> Result:
        result: Result = {
            **{"read_bytes": 0, "resumed_blocks": 0, "sync_seconds": 0.0},
            **{"hashes": {}, "inputs": {}},
        }
        left, done, looked = list(tasks), 0, time.monotonic()
        try:
            while left:
                ready, left = self._ray.wait(left, num_returns=1, timeout=0.2)
                for task in ready:
                    counts = self._ray.get(task)
                    # The workspace is worth keeping from the first whole shard on.
                    write_durably(work.journal, SHARDS, replace=True)
                    record = record_of(work.folder, tasks[task])
                    for key, count in counts.items():
                        result[key] += count
                    result["hashes"] |= record.hashes
                    result["inputs"] |= record.inputs
                    done += shards[tasks[task]]
                if progress:
                    progress(done, sum(shards.values()))
                if time.monotonic() - looked > _LOOK_SECONDS:
                    self._refuse_too_small(threads)
                    looked = time.monotonic()
        finally:
            for task in left:
                self._ray.cancel(task, force=True)
            if left:
                self._wait_for_workers(left, work.folder)
        return result

    def _refuse_too_small(self, threads: int) -> None:
        """Ray would wait for ever for a node that is large enough."""
        most = max(cpus_of_nodes(self._ray), default=0)
        if most < threads:
            raise SurroundingsError(
                f"nodes were lost: a shard needs {threads} CPUs, and no node is left with more"
                f" than {most}",
                "start nodes again, or give fewer `--threads`",
            )

    def _wait_for_workers(self, left: list[Any], folder: Path) -> None:
        """Wait until those that were cancelled work no more: they write by paths, which the next
        run may give to other files."""
        until = time.monotonic() + _PATIENCE_SECONDS
        self._ray.wait(left, num_returns=len(left), timeout=_PATIENCE_SECONDS)
        while any(map(is_held, worker_locks(folder))) and time.monotonic() < until:
            time.sleep(0.02)


def threads_for(cpus: list[int], shards: int, most: int) -> int:
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
