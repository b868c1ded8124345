"""Run a merge: config → plan → layout → stream → publish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.config.config import AnyConfig
from mergeplan.display.summary import Summarized
from mergeplan.display.text import format_bytes
from mergeplan.merging.checked import CheckedMerge, CheckedMerges
from mergeplan.merging.group_run import merge_and_publish
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.runner import Result, Runner, run_here
from mergeplan.merging.turns import Turns
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress, Shown, shown_as_bar

if TYPE_CHECKING:
    from mergeplan.merging.torch.device import Device


# Counted for all merges of one pass together.
_SHARED = ("read_bytes", "table_tensors", "table_elements")


@dataclass(frozen=True, repr=False)
class MergeReport(Summarized):
    """What a merge did.

    Attributes:
        read_bytes: Input bytes that were gone over by the core, each as often as it was.
        table_tensors: Experts' tensors of which every magnitude was counted in a table, since no
            sample told where their threshold lies: most often for what the page cache had lost of
            large ones. It costs time and changes no byte. Not told of merges on devices.
        table_elements: The elements of all of them.
        fallback_bytes: Bytes of the output's tensors that mergekit's executor computed; the core
            computed all others.
        resumed_blocks: Blocks of 65,536 output elements that an earlier run had left whole.
        phases: Seconds that `plan`, `merge`, `sync` and `publish` took.
        peak_anonymous_bytes: Anonymous memory of the process at its highest, sampled; 0 where the
            system does not say.
        peak_resident_bytes: Its resident memory at its highest, mapped input pages among it.
        devices: Where it was merged, beside the core; none for the core alone.
        device_bytes: Bytes of the output's tensors that were computed there.
        peak_vram_bytes: What torch had of one GPU's memory at the most; 0 without a GPU.
    """

    out: Path
    tensors: int
    files: tuple[str, ...]
    read_bytes: int
    table_tensors: int
    table_elements: int
    written_bytes: int
    fallback_bytes: int
    resumed_blocks: int
    seconds: float
    phases: dict[str, float]
    threads: int
    memory_limit_bytes: int
    peak_anonymous_bytes: int
    peak_resident_bytes: int
    seed: int
    devices: tuple[str, ...]
    device_bytes: int
    peak_vram_bytes: int
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """What was written, how fast, and every warning."""
        return "\n".join([merged_line([self], self.out), *(f"warning: {w}" for w in self.warnings)])


def merged_line(reports: "Sequence[MergeReport]", out: Path) -> str:
    """One line about merges that ran together into the folder `out`."""
    merges = f"{len(reports)} merges, " if len(reports) > 1 else ""
    tensors = sum(report.tensors for report in reports)
    written = format_bytes(sum(report.written_bytes for report in reports))
    seconds = reports[0].seconds
    rate = format_bytes(reports[0].read_bytes / max(seconds, 1e-9))
    fallback = sum(report.fallback_bytes for report in reports)
    by = f", {format_bytes(fallback)} of it by mergekit's executor" if fallback else ""
    there = sum(report.device_bytes for report in reports)
    if devices := reports[0].devices:
        by += f", {format_bytes(there)} of it by {' and '.join(devices)}"
    return f"{out}: {merges}{tensors} tensors, {written}{by} in {seconds:.2f} s ({rate}/s read)"


def merge(
    config: AnyConfig,
    out: str | Path,
    options: MergeOptions | None = None,
    progress: Shown = None,
) -> MergeReport:
    """Merge checkpoints into a new folder, by any of mergekit's methods and to its numbers.

    A merge that is stopped, by an error or from outside, leaves `OUT.partial`; the same call with
    `resume` goes on from there. Only where the inputs are at fault nothing stays.

    Args:
        config: A mergekit configuration: a dict, the path of its YAML, or a validated one.
        out: Folder to create; it is absent or complete at any moment.
        progress: Called some ten times a second with bytes done and bytes in all; or true for a
            bar, false for none, `None` for one in a notebook.

    Returns:
        What was written, and what it took.

    Raises:
        InputError: Config or inputs are at fault. All but values that are not finite is found
            before the first output byte.
        SurroundingsError: The output is in the way, or has no room.

    Example:
        >>> import mergeplan
        >>> models = [{"model": f"pool/{name}"} for name in ("js", "md")]
        >>> config = {"merge_method": "linear", "models": models, "parameters": {"weight": 1}}
        >>> mergeplan.merge(config, "merged").tensors
        27
    """
    return merge_many([MergeRequest(config, out)], options, progress)[0]


def merge_many(
    wanted: Sequence[MergeRequest],
    options: MergeOptions | None = None,
    progress: Shown = None,
    runner: Runner | None = None,
    approve: Callable[[CheckedMerges], object] | None = None,
) -> list[MergeReport]:
    """Merge checkpoints into several new folders at once.

    One pass over the inputs serves as many as the memory limit and the limit on open files hold;
    the others follow. Each gets the bytes that it would get alone.

    A run that is stopped leaves what is done of each; `resume` goes on from there. Where inputs are
    at fault, merges that were complete before stay.

    Args:
        options: For all of them.
        progress: As for `merge`.
        runner: What merges; by default the devices of the options, or the core, in this process.
        approve: Called once everything is checked, before the first output byte; what it raises
            ends the run.

    Returns:
        A report for each, in the order of `wanted`; times are those of all of them.

    Raises:
        InputError, SurroundingsError: As for `merge`.
    """
    begun = time.perf_counter()
    options = options or MergeOptions()
    turns = Turns(wanted, options)
    devices = _devices(options) if runner is None else []
    if runner is None:
        runner = _on_devices(devices) if devices else run_here
    watch = MemoryWatch()
    reports: list[MergeReport] = []
    merging = syncing = publishing = 0.0
    before = 0
    counts = dict.fromkeys(_SHARED, 0)
    with shown_as_bar(progress, "B") as told:
        for group, checked in turns:
            if approve is not None and not reports:
                approve(checked)
            shown = told and partial(_tell, told, before, turns.work_bytes - checked.work_bytes)
            start = time.perf_counter()
            done = merge_and_publish(checked, options, shown, watch, runner)
            sync = max((result["sync_seconds"] for result in done.results), default=0.0)
            syncing += sync
            merging += done.merged - start - sync
            publishing += time.perf_counter() - done.merged
            for key in _SHARED:
                counts[key] += max((result.get(key, 0) for result in done.results), default=0)
            before += checked.work_bytes
            each = zip(group, checked.merges, done.results, strict=True)
            reports += [
                _report(one, wanted[number].out, result, checked, devices)
                for number, one, result in each
            ]
            del checked, done, each  # the next group begins without this one
    ended = time.perf_counter()
    planning = ended - begun - merging - syncing - publishing
    return [
        replace(
            report,
            read_bytes=counts["read_bytes"],
            table_tensors=counts["table_tensors"],
            table_elements=counts["table_elements"],
            seconds=ended - begun,
            phases={"plan": planning, "merge": merging, "sync": syncing, "publish": publishing},
            peak_anonymous_bytes=watch.peak_anonymous_bytes(),
            peak_resident_bytes=watch.peak_resident_bytes(),
        )
        for report in reports
    ]


def _tell(told: Progress, before: int, others: int, done: int, total: int) -> None:
    """How far all merges are, by how far a group of them is."""
    told(before + done, others + total)


def _report(
    one: CheckedMerge,
    out: str | Path,
    result: Result,
    checked: CheckedMerges,
    devices: "list[Device]",
) -> MergeReport:
    """What a merge did, but for what is said of all together."""
    return MergeReport(
        out=Path(out),
        tensors=sum(len(tensors) for _, _, tensors in one.prepared.files),
        files=tuple(name for name, _, _ in one.prepared.files),
        read_bytes=0,
        table_tensors=0,
        table_elements=0,
        written_bytes=sum(length for _, length, _ in one.prepared.files),
        fallback_bytes=one.plan.fallback.n_bytes if one.plan.fallback else 0,
        resumed_blocks=result["resumed_blocks"],
        seconds=0.0,
        phases={},
        threads=checked.threads,
        memory_limit_bytes=checked.memory_limit,
        peak_anonymous_bytes=0,
        peak_resident_bytes=0,
        seed=one.plan.data.seed,
        devices=tuple(device.name for device in devices),
        device_bytes=result.get("device_bytes", 0),
        peak_vram_bytes=result.get("peak_vram_bytes", 0),
        warnings=(*one.warnings, *result.get("warnings", ())),
    )


def _devices(options: MergeOptions) -> "list[Device]":
    """Found once the inputs are checked: torch takes seconds to import, and memory."""
    if options.device is None:
        return []
    from mergeplan.merging.torch.device import find_devices

    return find_devices(options.device, options.vram_limit)


def _on_devices(devices: "list[Device]") -> Runner:
    from mergeplan.merging.torch.device_runner import DeviceRunner

    return DeviceRunner(devices)
