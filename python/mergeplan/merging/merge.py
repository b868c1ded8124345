"""Run a merge: config → plan → layout → stream → publish."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.config.config import AnyConfig
from mergeplan.display.summary import Summarized
from mergeplan.display.text import format_bytes
from mergeplan.errors import ContentError, InputError, MissingInputError
from mergeplan.merging.card import Card, write_card
from mergeplan.merging.checked import CheckedMerge, CheckedMerges
from mergeplan.merging.companions import copy_donated, write_config, write_index, write_planned
from mergeplan.merging.fallback import write_given
from mergeplan.merging.manifest import stored_hashes, write_manifest
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.preflight import check_merges
from mergeplan.merging.replacing import unknown_in
from mergeplan.merging.runner import Result, Runner, nothing_done, run_here
from mergeplan.merging.workfolder import refuse_removal
from mergeplan.merging.workspace import Workspace, is_published, open_workspace, remove_leftover
from mergeplan.system.files import clear_folder
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress, Shown, shown_as_bar

if TYPE_CHECKING:
    from mergeplan.merging.torch.device import Device


@dataclass(frozen=True, repr=False)
class MergeReport(Summarized):
    """What a merge did.

    Attributes:
        read_bytes: Input bytes that were gone over by the core, each as often as it was.
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

    One pass over the inputs, as far as memory goes, serves all of them. Each gets the bytes that it
    would get alone.

    A run that is stopped leaves what is done of each; `resume` goes on from there.

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
    checked = check_merges(wanted, options)
    devices = _devices(options) if runner is None else []
    if approve is not None:
        approve(checked)
    planned = time.perf_counter()
    watch = MemoryWatch()
    if runner is None:
        runner = _on_devices(devices) if devices else run_here
    with shown_as_bar(progress, "B") as told:
        done = _merge_and_publish(checked, options, told, watch, runner)
    ended = time.perf_counter()
    sync = max((result["sync_seconds"] for result in done.results), default=0.0)
    return [
        MergeReport(
            out=Path(want.out),
            tensors=sum(len(tensors) for _, _, tensors in one.prepared.files),
            files=tuple(name for name, _, _ in one.prepared.files),
            read_bytes=result["read_bytes"],
            written_bytes=sum(length for _, length, _ in one.prepared.files),
            fallback_bytes=one.plan.fallback.n_bytes if one.plan.fallback else 0,
            resumed_blocks=result["resumed_blocks"],
            seconds=ended - begun,
            phases={
                "plan": planned - begun,
                "merge": done.merged - planned - sync,
                "sync": sync,
                "publish": ended - done.merged,
            },
            threads=checked.threads,
            memory_limit_bytes=checked.memory_limit,
            peak_anonymous_bytes=watch.peak_anonymous_bytes(),
            peak_resident_bytes=watch.peak_resident_bytes(),
            seed=one.plan.data.seed,
            devices=tuple(device.name for device in devices),
            device_bytes=result.get("device_bytes", 0),
            peak_vram_bytes=result.get("peak_vram_bytes", 0),
            warnings=(*one.warnings, *result.get("warnings", ())),
        )
        for one, want, result in zip(checked.merges, wanted, done.results, strict=True)
    ]


def _devices(options: MergeOptions) -> "list[Device]":
    """Found once the inputs are checked: torch takes seconds to import, and memory."""
    if options.device is None:
        return []
    from mergeplan.merging.torch.device import find_devices

    return find_devices(options.device, options.vram_limit)


def _on_devices(devices: "list[Device]") -> Runner:
    from mergeplan.merging.torch.device_runner import DeviceRunner

    return DeviceRunner(devices)


@dataclass(frozen=True)
class _Done:
    """What the core reported of each merge, and when all of them were durable."""

    results: list[Result]
    merged: float


def _merge_and_publish(
    checked: CheckedMerges,
    options: MergeOptions,
    progress: Progress | None,
    watch: MemoryWatch,
    runner: Runner,
) -> _Done:
    results = [nothing_done() for _ in checked.merges]
    open_works: dict[int, Workspace] = {}
    try:
        for number, one in enumerate(checked.merges):
            if options.resume and is_published(one):
                remove_leftover(one.out)
                continue
            resume, discard = options.resume, options.discard
            open_works[number] = open_workspace(one, resume=resume, discard=discard)
        to_merge = {i: work for i, work in open_works.items() if not work.is_publishing}
        if to_merge:
            for number, result in runner(checked, to_merge, progress, watch).items():
                results[number] = result
        merged = time.perf_counter()
        for number, work in list(open_works.items()):
            if number in to_merge:
                one = checked.merges[number]
                given = write_given(work.data, one.plan, one.prepared)
                watch.sample()
                hashes = {**results[number]["hashes"], **given}
                files = one.prepared.files
                hashes = stored_hashes(hashes, files, work.data, checked.threads)
                results[number]["hashes"] = hashes
                _write_companions(one, work.data, options, results[number])
            if (stays := work.publish()) is not None:
                told = f"`{stays}` stays: it holds what mergeplan did not put there"
                results[number]["warnings"] = [*results[number].get("warnings", ()), told]
            del open_works[number]
    except ContentError:
        for work in open_works.values():
            with suppress(OSError):
                work.remove()
        raise
    except BaseException as error:
        refused = isinstance(error, InputError) and not isinstance(error, MissingInputError)
        left = [work.folder for work in open_works.values() if work.leave()]
        if left and not refused:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            note = f"what is done stays in `{left[0]}`{more}; `resume` goes on from there"
            # What `add_note` of Python 3.11 does.
            error.__notes__ = [*getattr(error, "__notes__", ()), note]
        raise
    return _Done(results, merged)


def _write_companions(
    checked: CheckedMerge, folder: Path, options: MergeOptions, result: Result
) -> None:
    from mergeplan._native import fault

    prepared, plan, hashes = checked.prepared, checked.plan, result["hashes"]
    files = {name: length for name, length, _ in prepared.files}
    fault("companions")
    # A run that was stopped here may have had other ideas of what goes beside the weights.
    unknown = next(unknown_in(folder, checked.written, unfinished=True), None)
    if unknown is not None:
        refuse_removal(folder / unknown)
    clear_folder(folder, keep=files)
    write_index(folder, plan.data.stem, prepared.files, prepared.tensor_bytes)
    fault("index")
    write_config(folder, plan, hashes)
    copy_donated(folder, plan, checked.copied)
    if plan.companions is not None:
        write_planned(folder, plan.companions)
    if options.write_model_card:
        write_card(folder, checked.out.name, Card(checked.config, plan, options.license))
    inputs = checked.state.inputs
    write_manifest(folder, plan, checked.config, inputs, files, hashes, result["inputs"])
