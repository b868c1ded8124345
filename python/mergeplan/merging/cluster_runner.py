"""One merge on a Ray cluster: each output shard has one owner.

A worker merges a shard as a merge of its own, in a folder of its own, syncs it, moves it among the
output's files and leaves a record of its hashes. The driver writes what goes beside the weights and
publishes. Ray repeats the shard of a lost worker, which goes on from the blocks that are there. All
nodes must see inputs and output under the same paths.
"""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.merging.checked import CheckedMerges
from mergeplan.merging.manifest import stored_hashes
from mergeplan.merging.runner import Result
from mergeplan.merging.shards import RECORD_OF_SHARD, ShardRecord
from mergeplan.merging.workfolder import RECORD as STATE
from mergeplan.merging.workfolder import SHARDS, worker_locks
from mergeplan.merging.workspace import Workspace
from mergeplan.system.files import is_held, lock, sync_folder
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress
from mergeplan.system.ray import on_every_node
from mergeplan.system.reading import RECORD
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably

# A worker that was killed is gone within moments; one on a node that is lost may never be.
_PATIENCE_SECONDS = 20.0


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
        """
        results = {}
        for number, work in works.items():
            prepared, plan = checked.merges[number].prepared, checked.merges[number].plan.data
            paths = [str(path) for rows in prepared.identities for path, *_ in rows]
            self._check_nodes(paths, work.folder)
            run = _seen([], work.folder)
            tasks = {}
            remote = self._ray.remote(num_cpus=checked.threads, max_retries=-1)(_merge_shard)
            for name, length, tensors in prepared.files:
                chosen = set(tensors)
                jobs = tuple(job for job in plan.jobs if next(iter(job.stored)) in chosen)
                part = replace(plan, jobs=jobs, max_shard_bytes=2**63).json()
                task = remote.remote(
                    part, name, work.folder, checked.threads, checked.core_memory, run
                )
                tasks[task] = length
            results[number] = self._collect(tasks, work, progress)
        return results

    def _check_nodes(self, paths: list[str], folder: Path) -> None:
        expected = _seen(paths, folder)
        for address, found in on_every_node(self._ray, _seen, paths, folder).items():
            for path, identity in expected.items():
                if found.get(path) != identity:
                    raise InputError(
                        f"node `{address}` of the cluster does not see the same `{path}`",
                        "inputs and output must lie on a file system that all nodes share",
                    )

    def _collect(self, tasks: dict[Any, int], work: Workspace, progress: Progress | None) -> Result:
        result: Result = {
            **{"read_bytes": 0, "resumed_blocks": 0, "sync_seconds": 0.0},
            **{"hashes": {}, "inputs": {}},
        }
        left, done, total = list(tasks), 0, sum(tasks.values())
        try:
            while left:
                ready, left = self._ray.wait(left, num_returns=1, timeout=0.2)
                for task in ready:
                    shard = self._ray.get(task)
                    # The workspace is worth keeping from the first whole shard on.
                    write_durably(work.journal, SHARDS, replace=True)
                    for key in ("read_bytes", "resumed_blocks"):
                        result[key] += shard[key]
                    result["hashes"] |= shard["hashes"]
                    result["inputs"] |= shard["inputs"]
                    done += tasks[task]
                if progress:
                    progress(done, total)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None
        finally:
            for task in left:
                self._ray.cancel(task, force=True)
            if left:
                self._wait_for_workers(left, work.folder)
        return result

    def _wait_for_workers(self, left: list[Any], folder: Path) -> None:
        """Wait until those that were cancelled work no more: they write by paths, which the next
        run may give to other files."""
        until = time.monotonic() + _PATIENCE_SECONDS
        self._ray.wait(left, num_returns=len(left), timeout=_PATIENCE_SECONDS)
        while any(map(is_held, worker_locks(folder))) and time.monotonic() < until:
            time.sleep(0.02)


def _seen(paths: list[str], folder: Path) -> dict[str, Any]:
    """What a node finds: sizes and times of the inputs, and this very run's folder."""
    seen: dict[str, Any] = {}
    for path in paths:
        try:
            stat = Path(path).stat()
        except OSError:
            continue
        seen[path] = (stat.st_size, stat.st_mtime_ns)
    state = folder / STATE
    if state.is_file():
        seen[str(folder)] = state.stat().st_ino, state.read_bytes()
    return seen


def _check_run(folder: Path, run: dict[str, Any]) -> None:
    if _seen([], folder) != run:
        raise SurroundingsError(f"`{folder}` is by now that of another run")


def _merge_shard(
    plan_json: str,
    name: str,
    folder: Path,
    threads: int,
    memory_bytes: int,
    run: dict[str, Any],
) -> Result:
    """Merge one shard, unless a record says that it is there; runs on a worker.

    Args:
        run: What the driver has seen of `folder`: by now it may be that of another run.

    Raises:
        SurroundingsError: The place where it works leads elsewhere, or another works there.
    """
    from mergeplan._native import PreparedMerge, content_hashes

    own, final = folder / SHARDS / name, folder / "data" / name
    _check_run(folder, run)
    for place in (own.parent, own):
        if place.is_symlink():
            raise SurroundingsError(f"`{place}` is a link", "pass `--discard` to start over")
        place.mkdir(exist_ok=True)
    held = lock(own, "worker")
    try:
        _check_run(folder, run)  # from here on nobody removes it
        record = own / RECORD_OF_SHARD
        if record.exists() and final.exists():
            left = load_strictly(record, ShardRecord, RECORD)
            if content_hashes(final, threads=threads) == left.hashes:
                return {"read_bytes": 0, "resumed_blocks": len(left.hashes), **asdict(left)}
        merged, journal = own / WEIGHTS_FILE, own / "journal"
        resume = journal.exists() and merged.exists()
        if not resume:
            # A worker that was killed may have left any of them: also that of what was read.
            for place in (merged, journal, journal.with_suffix(".inputs")):
                place.unlink(missing_ok=True)
        prepared = PreparedMerge(plan_json)
        done: Result = prepared.run(
            own, journal=journal, threads=threads, memory_bytes=memory_bytes, resume=resume
        )
        done["hashes"] = stored_hashes(done["hashes"], prepared.files, own, threads)
        merged.replace(final)
        sync_folder(final.parent)
        left = ShardRecord(done["hashes"], done["inputs"])
        write_durably(record, json.dumps(asdict(left)), replace=True)
        return done
    finally:
        held.close()
