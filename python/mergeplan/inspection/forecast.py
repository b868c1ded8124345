"""What a merge will read, write, hold in memory and take in time, from headers alone."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.config.config import MergeConfig
from mergeplan.inspection import speeds
from mergeplan.merging.preflight import RESERVE_BYTES, fallback_memory
from mergeplan.planning.document import Delta, Group, Wide
from mergeplan.planning.group_methods import Karcher, Multislerp
from mergeplan.planning.plan import MergePlan
from mergeplan.system.files import expanded
from mergeplan.system.machine import worker_threads
from mergeplan.system.memory import anonymous_bytes, default_limit

if TYPE_CHECKING:
    from mergeplan._native import PreparedMerge


# Methods that stop early where the inputs let them.
DATA_DEPENDENT = (Karcher, Multislerp)
_MIB = 1 << 20
# What one process may take more than another that does the same.
_MARGIN = 1 << 20


@dataclass(frozen=True)
class MemoryForecast:
    """Anonymous memory in bytes; mapped pages of the inputs are not among it.

    Attributes:
        process_bytes: What Python takes, with the plan and a reserve.
        core_least_bytes: What the core cannot do without.
        core_most_bytes: Beyond which it gets no faster.
        minimum_bytes: The lowest limit to give, in whole MiB: another process may take a little
            more than this one.
        limit_bytes: The limit that was given, else the default at so many threads.
        limit_given: Whether it was given.
        holds: Whether the merge runs within it.
        peak_bytes: What the process takes at the most.
    """

    process_bytes: int
    core_least_bytes: int
    core_most_bytes: int
    minimum_bytes: int
    limit_bytes: int
    limit_given: bool
    holds: bool
    peak_bytes: int


@dataclass(frozen=True)
class DiskForecast:
    """Disk space in bytes.

    Attributes:
        needed_bytes: Output files and what lies beside them.
        place: The folder whose disk is meant; `None` without an output.
        free_bytes: Free there.
    """

    needed_bytes: int
    place: Path | None
    free_bytes: int | None


@dataclass(frozen=True)
class FallbackForecast:
    """What mergekit's own executor computes, because the core cannot.

    Attributes:
        n_bytes: Bytes of those output tensors.
        memory_bytes: Anonymous memory that the largest may take, beside the process's own.
        holds: Whether that is within the limit that was given, or else within the free memory.
    """

    tensors: int
    n_bytes: int
    memory_bytes: int
    holds: bool


@dataclass(frozen=True)
class TimeForecast:
    """Estimates of seconds, scaled from measurements on one machine; see `basis`.

    Attributes:
        from_cache: With all inputs in the page cache.
        from_disk: With inputs and output on a disk of `disk_bytes_per_second`; each input byte
            comes from there once.
    """

    from_cache: float
    from_disk: float
    disk_bytes_per_second: float
    basis: str


@dataclass(frozen=True)
class MergeForecast:
    """A merge before it runs.

    Attributes:
        input_bytes: Bytes of the tensors that are read, each once.
        read_bytes: The same bytes, each as often as a pass goes over it; with room for all
            statistics.
        read_is_exact: Whether it is certain: it is not where the number of passes depends on the
            weights, or on memory that the limit does not leave.
        written_bytes: Bytes of the output's safetensors files.
    """

    threads: int
    input_bytes: int
    read_bytes: int
    read_is_exact: bool
    written_bytes: int
    memory: MemoryForecast
    disk: DiskForecast
    time: TimeForecast
    fallback: FallbackForecast | None


def forecast_merge(
    config: MergeConfig,
    plan: MergePlan,
    prepared: "PreparedMerge",
    *,
    threads: int,
    memory_limit: int | None,
    out: Path | None,
    beside_bytes: int,
) -> MergeForecast:
    """Forecast a merge whose inputs were opened.

    Args:
        memory_limit: Bytes that the whole process may take, or `None` for the default.
        out: Where it would be written, if that is known.
        beside_bytes: Of the files beside the weights.
    """
    core = prepared.forecast(threads)
    least, most = core["least_memory_bytes"], core["most_memory_bytes"]
    memory = _memory(least, most, threads, memory_limit)
    written = sum(length for _, length, _ in prepared.files)
    return MergeForecast(
        threads=threads,
        input_bytes=core["input_bytes"],
        read_bytes=core["work_bytes"],
        read_is_exact=_is_exact(plan) and memory.peak_bytes >= memory.process_bytes + most,
        written_bytes=written,
        memory=memory,
        disk=_disk(written + beside_bytes, out),
        time=_time(config, plan, core["input_bytes"], written, threads),
        fallback=_fallback(plan, memory_limit),
    )


def input_elements(plan: MergePlan) -> int:
    """Elements of all input tensors, each once."""
    return sum(job.n_elements * len(job.merge.references) for job in plan.data.jobs)


def _is_exact(plan: MergePlan) -> bool:
    """Thresholds of deltas in more than 16 bits are guessed first; a wrong guess costs a pass. Some
    methods stop early."""
    merges = [job.merge for job in plan.data.jobs]
    trimmed = any(
        isinstance(merge, Delta)
        and merge.sparsify in ("magnitude", "outliers")
        and merge.dtype != "bfloat16"
        for merge in merges
    )
    stops_early = any(
        isinstance(merge, Group) and isinstance(merge.method, DATA_DEPENDENT) for merge in merges
    )
    return not trimmed and not stops_early


def _memory(least: int, most: int, threads: int, limit: int | None) -> MemoryForecast:
    process = anonymous_bytes() + RESERVE_BYTES
    minimum = (process + least + _MARGIN + _MIB - 1) // _MIB * _MIB
    allowed = default_limit(threads) if limit is None else limit
    return MemoryForecast(
        process_bytes=process,
        core_least_bytes=least,
        core_most_bytes=most,
        minimum_bytes=minimum,
        limit_bytes=allowed,
        limit_given=limit is not None,
        holds=process + least <= allowed,
        peak_bytes=min(process + max(least, most), max(minimum, allowed)),
    )


def _fallback(plan: MergePlan, limit: int | None) -> FallbackForecast | None:
    if plan.fallback is None:
        return None
    needed, allowed = fallback_memory(plan.fallback, limit)
    return FallbackForecast(
        tensors=len(plan.fallback.tensors),
        n_bytes=plan.fallback.n_bytes,
        memory_bytes=plan.fallback.memory_bytes,
        holds=allowed is None or needed <= allowed,
    )


def _disk(needed: int, out: Path | None) -> DiskForecast:
    if out is None:
        return DiskForecast(needed, None, None)
    place = expanded(out).resolve()
    existing = next(p for p in (place, *place.parents) if p.exists())
    return DiskForecast(needed, existing, shutil.disk_usage(existing).free)


def _time(
    config: MergeConfig, plan: MergePlan, input_bytes: int, written: int, threads: int
) -> TimeForecast:
    narrow, wide = speeds.MILLION_ELEMENTS.get(config.method.name, speeds.OWN)
    given = plan.fallback.n_bytes if plan.fallback else 0
    seconds = given / speeds.FALLBACK * threads  # which runs on one thread
    for job in plan.data.jobs:
        elements = job.n_elements * len(job.merge.references)
        exact = isinstance(job.merge, Wide) or getattr(job.merge, "dtype", None) == "float32"
        rate = wide if exact else narrow
        seconds += elements / (rate * 1e6)
    seconds /= min(threads, worker_threads())
    start = speeds.START_SECONDS + speeds.TENSOR_SECONDS * len(plan.data.jobs)
    disk = speeds.DISK
    return TimeForecast(
        from_cache=start + seconds + written / speeds.WRITE,
        from_disk=start + max(seconds, input_bytes / disk) + written / disk,
        disk_bytes_per_second=disk,
        basis=f"{speeds.BASIS}; other processors differ, so take it as good to a factor of two",
    )
