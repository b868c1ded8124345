"""Run a merge: config → plan → layout → stream → publish."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.companions import (
    Inputs,
    copy_tokenizer,
    missing_companions,
    write_card,
    write_config,
    write_index,
    write_manifest,
)
from mergeplan.config import MergeConfig, load_config
from mergeplan.errors import ContentError, InputError, MissingInputError
from mergeplan.memory import MemoryWatch, anonymous_bytes, default_limit
from mergeplan.output import check_output, check_space, clear_folder, format_bytes
from mergeplan.plan import MergePlan, build_plan
from mergeplan.workspace import (
    Workspace,
    check_leftover,
    is_published,
    is_publishing,
    merge_state,
    open_workspace,
    partial_folder,
    remove_leftover,
)

if TYPE_CHECKING:
    from mergeplan._native import PreparedMerge

# mergekit's default, which it counts in bytes too.
DEFAULT_SHARD_BYTES = 5_000_000_000
# Room for the small files beside the weights.
COMPANION_BYTES = 64_000_000
# Anonymous memory that Python may take on while the core runs.
RESERVE_BYTES = 8 << 20
# By how much that may differ between two processes that begin the same merge.
SLACK_BYTES = 1 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MergeOptions:
    """How to run a merge, beside its config.

    Attributes:
        seed: Seed of random masks, 0 to 2**64 - 1.
        threads: Worker threads; `None` for one on each core.
        max_shard_bytes: Bytes of tensors in one output file.
        allow_nonfinite: Merge NaN and infinity instead of refusing them.
        memory_limit: Bytes of anonymous memory that the whole process may take; `None` for 256 MiB
            at two threads and 32 MiB for each further one, or what the merge needs at the least.
        overwrite: Replace an output folder that has content, at the very end.
        resume: Go on from what an interrupted run left, if there is anything.
        discard: Throw that away.
        copy_tokenizer, write_model_card: Whether those files are written.
    """

    seed: int = 0
    threads: int | None = None
    max_shard_bytes: int = DEFAULT_SHARD_BYTES
    allow_nonfinite: bool = False
    memory_limit: int | None = None
    overwrite: bool = False
    resume: bool = False
    discard: bool = False
    copy_tokenizer: bool = True
    write_model_card: bool = True


@dataclass(frozen=True)
class MergeReport:
    """What a merge did.

    Attributes:
        read_bytes: Input bytes that were gone over, each as often as it was.
        resumed_blocks: Blocks of 65,536 output elements that an earlier run had left whole.
        phases: Seconds that `plan`, `merge`, `sync` and `publish` took.
        peak_anonymous_bytes: Anonymous memory of the process at its highest, sampled; 0 where the
            system does not say.
        peak_resident_bytes: Its resident memory at its highest, mapped input pages among it.
    """

    out: Path
    tensors: int
    files: tuple[str, ...]
    read_bytes: int
    written_bytes: int
    resumed_blocks: int
    seconds: float
    phases: dict[str, float]
    threads: int
    memory_limit_bytes: int
    peak_anonymous_bytes: int
    peak_resident_bytes: int
    seed: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CheckedMerge:
    """A merge that can begin: its inputs fit, and its output has a place and room.

    Attributes:
        out: Resolved folder.
        prepared: The Rust core's view, with all inputs open.
        memory_limit: Bytes of anonymous memory for the whole process.
        core_memory: The core's share of them.
        work_bytes: Input bytes that the passes are expected to go over.
        state: What makes this merge this merge; see `workspace.merge_state`.
    """

    config: MergeConfig
    plan: MergePlan
    out: Path
    prepared: "PreparedMerge"
    threads: int
    memory_limit: int
    core_memory: int
    work_bytes: int
    state: dict[str, Any]
    warnings: tuple[str, ...]


def check_merge(
    config: MergeConfig | str | Path, out: str | Path, options: MergeOptions
) -> CheckedMerge:
    """Check everything that can be checked before the first output byte.

    Raises:
        InputError: Config, headers, shapes, dtypes or options do not fit, or the memory limit is
            too low.
        SurroundingsError: The output is in the way, or has no room.
    """
    from mergeplan import _native

    if options.resume and options.discard:
        raise InputError("`resume` and `discard` exclude each other")
    if not isinstance(config, MergeConfig):
        config = load_config(Path(config))
    place = Path(out).expanduser().resolve()
    plan = build_plan(
        config,
        seed=options.seed,
        max_shard_bytes=options.max_shard_bytes,
        allow_nonfinite=options.allow_nonfinite,
    )
    read = [path for c in plan.checkpoints for path in (c.path, *c.files)]
    prepared = _native.PreparedMerge(plan.json())
    threads = options.threads or os.cpu_count() or 1
    forecast = prepared.forecast(threads)
    limit, core = _memory_limit(forecast["least_memory_bytes"], threads, options.memory_limit)
    inputs: Inputs = [[(str(p), n, t) for p, n, t in rows] for rows in prepared.identities]
    state = merge_state(plan.data, inputs)
    warnings = (*plan.warnings, *missing_companions(plan))
    ours = options.resume and (is_publishing(place) or is_published(place, state))
    check_output(partial_folder(place), read, overwrite=True)
    check_leftover(place, resume=options.resume, discard=options.discard)
    check_output(place, read, overwrite=options.overwrite or ours)
    if not partial_folder(place).exists() and not ours:
        check_space(place, sum(length for _, length, _ in prepared.files) + COMPANION_BYTES)
    return CheckedMerge(
        config=config,
        plan=plan,
        out=place,
        prepared=prepared,
        threads=threads,
        memory_limit=limit,
        core_memory=core,
        work_bytes=forecast["work_bytes"],
        state=state,
        warnings=warnings,
    )


def _memory_limit(core_least: int, threads: int, wished: int | None) -> tuple[int, int]:
    """Bytes for the whole process, and those of them that are left for the core."""
    own = anonymous_bytes() + RESERVE_BYTES
    least = own + core_least
    if wished is None:
        wished = max(least, default_limit(threads))
    if wished < least:
        # Whoever follows the message gets through, though the next process begins a little larger.
        enough = -(-(least + SLACK_BYTES) // 1_000_000)
        raise InputError(
            f"the memory limit is too low: expected {enough} MB or more with {threads} threads,"
            f" found {format_bytes(wished)}",
            "raise `--memory-limit`" + (", or use fewer `--threads`" if threads > 1 else ""),
        )
    return wished, wished - own


def merge(
    config: MergeConfig | str | Path,
    out: str | Path,
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> MergeReport:
    """Merge checkpoints into a new folder.

    A merge that is stopped, by an error or from outside, leaves `OUT.partial`; the same call with
    `resume` goes on from there. Only where the inputs are at fault nothing stays.

    Args:
        config: A validated config, or the path of a mergekit YAML.
        out: Folder to create; it is absent or complete at any moment.
        progress: Called some ten times a second with bytes done and bytes in all.

    Raises:
        InputError: Config or inputs are at fault. All but values that are not finite is found
            before the first output byte.
        SurroundingsError: The output is in the way, or has no room.

    Example:
        >>> import mergeplan
        >>> mergeplan.merge("merge.yml", "merged")  # doctest: +SKIP
    """
    begun = time.perf_counter()
    options = options or MergeOptions()
    checked = check_merge(config, out, options)
    state = checked.state
    planned = time.perf_counter()
    lengths = {name: length for name, length, _ in checked.prepared.files}
    done: dict[str, Any] = {"read_bytes": 0, "resumed_blocks": 0, "sync_seconds": 0.0, "hashes": {}}
    watch = MemoryWatch()
    if options.resume and is_published(checked.out, state):
        remove_leftover(checked.out)
        merged = time.perf_counter()
    else:
        resume, discard = options.resume, options.discard
        work = open_workspace(checked.out, state, resume=resume, discard=discard)
        try:
            if not work.is_publishing:
                done = _run(checked, work, progress, watch)
            merged = time.perf_counter()
            if not work.is_publishing:
                _write_companions(checked, work.data, options, done["hashes"])
            work.publish()
        except ContentError:
            work.remove()
            raise
        except BaseException as error:
            refused = isinstance(error, InputError) and not isinstance(error, MissingInputError)
            if work.leave() and not refused:
                note = f"what is done stays in `{work.folder}`; `resume` goes on from there"
                # What `add_note` of Python 3.11 does.
                error.__notes__ = [*getattr(error, "__notes__", ()), note]
            raise
    ended = time.perf_counter()
    return MergeReport(
        out=Path(out),
        tensors=len(checked.plan.data["jobs"]),
        files=tuple(lengths),
        read_bytes=done["read_bytes"],
        written_bytes=sum(lengths.values()),
        resumed_blocks=done["resumed_blocks"],
        seconds=ended - begun,
        phases={
            "plan": planned - begun,
            "merge": merged - planned - done["sync_seconds"],
            "sync": done["sync_seconds"],
            "publish": ended - merged,
        },
        threads=checked.threads,
        memory_limit_bytes=checked.memory_limit,
        peak_anonymous_bytes=watch.peak_anonymous_bytes(),
        peak_resident_bytes=watch.peak_resident_bytes(),
        seed=options.seed,
        warnings=checked.warnings,
    )


def _run(
    checked: CheckedMerge, work: Workspace, progress: Progress | None, watch: MemoryWatch
) -> dict[str, Any]:
    prepared = checked.prepared
    allow_open_files(len(prepared.files) + sum(len(c.files) for c in checked.plan.checkpoints))

    def report(done: int) -> None:
        watch.sample()
        if progress:
            progress(done, checked.work_bytes)

    done: dict[str, Any] = prepared.run(
        work.data,
        journal=work.journal,
        threads=checked.threads,
        memory_bytes=checked.core_memory,
        resume=work.resumed,
        progress=report,
    )
    watch.sample()
    return done


def _write_companions(
    checked: CheckedMerge, folder: Path, options: MergeOptions, hashes: dict[str, str]
) -> None:
    from mergeplan import _native

    prepared, plan = checked.prepared, checked.plan
    files = {name: length for name, length, _ in prepared.files}
    _native.fault("companions")
    # A run that was stopped here may have had other ideas of what goes beside the weights.
    clear_folder(folder, keep=files)
    write_index(folder, prepared.files, prepared.tensor_bytes)
    _native.fault("index")
    write_config(folder, plan)
    if options.copy_tokenizer:
        copy_tokenizer(folder, plan)
    if options.write_model_card:
        write_card(folder, checked.out.name, checked.config, options.seed)
    write_manifest(folder, plan, checked.config, checked.state["inputs"], files, hashes)


def allow_open_files(count: int) -> None:
    """Raise the soft limit on open files, as far as the hard one allows, if `count` needs it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + 64
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
