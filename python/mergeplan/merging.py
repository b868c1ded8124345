"""Run a merge: config → plan → layout → stream → publish."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mergeplan.companions import (
    copy_tokenizer,
    write_card,
    write_config,
    write_index,
    write_manifest,
)
from mergeplan.config import MergeConfig, load_config
from mergeplan.output import check_output, check_space, partial_folder, publishing
from mergeplan.plan import MergePlan, build_plan

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


def plan_merge(config: MergeConfig, options: MergeOptions) -> MergePlan:
    """The plan of a merge, from headers alone.

    Raises:
        InputError: As `build_plan`.
    """
    return build_plan(
        config,
        seed=options.seed,
        max_shard_bytes=options.max_shard_bytes,
        allow_nonfinite=options.allow_nonfinite,
    )


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
        InputError: Config or inputs are at fault. All but NaN and infinity is found before the
            first output byte.
        SurroundingsError: The output is in the way, or has no room.

    Example:
        >>> import mergeplan
        >>> mergeplan.merge("merge.yml", "merged")  # doctest: +SKIP
    """
    from mergeplan import _native

    begun = time.perf_counter()
    options = options or MergeOptions()
    if not isinstance(config, MergeConfig):
        config = load_config(Path(config))
    out = Path(out)
    plan = plan_merge(config, options)
    inputs = [checkpoint.path for checkpoint in plan.checkpoints]
    for folder in (out, partial_folder(out)):
        check_output(folder, inputs, overwrite=options.overwrite or folder != out)
    prepared = _native.PreparedMerge(plan.json())
    files = prepared.files
    total = prepared.work_bytes
    check_space(out, sum(length for _, length, _ in files) + COMPANION_BYTES)

    with publishing(out, discard=options.discard) as work:
        hashes = prepared.run(
            work,
            threads=options.threads or os.cpu_count() or 1,
            progress=(lambda done: progress(done, total)) if progress else None,
        )
        write_index(work, files, prepared.tensor_bytes)
        write_config(work, plan)
        if options.copy_tokenizer:
            copy_tokenizer(work, plan)
        if options.write_model_card:
            write_card(work, out.resolve().name, config, options.seed)
        write_manifest(work, plan, config, {name: length for name, length, _ in files}, hashes)
    return MergeReport(
        out=out,
        tensors=len(hashes),
        files=tuple(name for name, _, _ in files),
        read_bytes=total,
        written_bytes=sum(length for _, length, _ in files),
        seconds=time.perf_counter() - begun,
        seed=options.seed,
        warnings=plan.warnings,
    )
