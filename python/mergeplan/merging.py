"""Run a merge: config → plan → layout → stream → publish."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.companions import (
    copy_tokenizer,
    missing_companions,
    write_card,
    write_config,
    write_index,
    write_manifest,
)
from mergeplan.config import MergeConfig, load_config
from mergeplan.output import (
    check_output,
    check_space,
    clear_leftover,
    partial_folder,
    publishing,
)
from mergeplan.plan import MergePlan, build_plan

if TYPE_CHECKING:
    from mergeplan._native import PreparedMerge

# mergekit's default, which it counts in bytes too.
DEFAULT_SHARD_BYTES = 5_000_000_000
# Room for the small files beside the weights.
COMPANION_BYTES = 64_000_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MergeOptions:
    """How to run a merge, beside its config.

    Attributes:
        seed: Seed of random masks, 0 to 2**64 - 1.
        threads: Worker threads; `None` for one on each core.
        max_shard_bytes: Bytes of tensors in one output file.
        allow_nonfinite: Merge NaN and infinity instead of refusing them.
        overwrite: Replace an output folder that has content, at the very end.
        discard: Throw away what an interrupted run left.
        copy_tokenizer, write_model_card: Whether those files are written.
    """

    seed: int = 0
    threads: int | None = None
    max_shard_bytes: int = DEFAULT_SHARD_BYTES
    allow_nonfinite: bool = False
    overwrite: bool = False
    discard: bool = False
    copy_tokenizer: bool = True
    write_model_card: bool = True


@dataclass(frozen=True)
class MergeReport:
    """What a merge did. `read_bytes` counts every byte as often as it was read."""

    out: Path
    tensors: int
    files: tuple[str, ...]
    read_bytes: int
    written_bytes: int
    seconds: float
    seed: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CheckedMerge:
    """A merge that can begin: its inputs fit, and its output has a place and room.

    Attributes:
        out: Resolved folder.
        prepared: The Rust core's view, with all inputs open.
    """

    config: MergeConfig
    plan: MergePlan
    out: Path
    prepared: "PreparedMerge"
    warnings: tuple[str, ...]


def check_merge(
    config: MergeConfig | str | Path, out: str | Path, options: MergeOptions
) -> CheckedMerge:
    """Check everything that can be checked before the first output byte.

    Raises:
        InputError: Config, headers, shapes, dtypes or options do not fit.
        SurroundingsError: The output is in the way, or has no room.
    """
    from mergeplan import _native

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
    check_output(place, read, overwrite=options.overwrite)
    check_output(partial_folder(place), read, overwrite=True)
    prepared = _native.PreparedMerge(plan.json())
    clear_leftover(place, discard=options.discard)
    check_space(place, sum(length for _, length, _ in prepared.files) + COMPANION_BYTES)
    warnings = (*plan.warnings, *missing_companions(plan))
    return CheckedMerge(config, plan, place, prepared, warnings)


def merge(
    config: MergeConfig | str | Path,
    out: str | Path,
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> MergeReport:
    """Merge checkpoints into a new folder.

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
    prepared, plan = checked.prepared, checked.plan
    total = prepared.work_bytes
    lengths = {name: length for name, length, _ in prepared.files}
    allow_open_files(len(lengths) + sum(len(c.files) for c in plan.checkpoints))
    with publishing(checked.out) as work:
        hashes = prepared.run(
            work,
            threads=options.threads or os.cpu_count() or 1,
            progress=(lambda done: progress(done, total)) if progress else None,
        )
        write_index(work, prepared.files, prepared.tensor_bytes)
        write_config(work, plan)
        if options.copy_tokenizer:
            copy_tokenizer(work, plan)
        if options.write_model_card:
            write_card(work, checked.out.name, checked.config, options.seed)
        write_manifest(work, plan, checked.config, lengths, hashes)
    return MergeReport(
        out=Path(out),
        tensors=len(hashes),
        files=tuple(lengths),
        read_bytes=total,
        written_bytes=sum(lengths.values()),
        seconds=time.perf_counter() - begun,
        seed=options.seed,
        warnings=checked.warnings,
    )


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
