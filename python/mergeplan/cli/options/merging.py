"""The options of every command that merges into folders: those of `merge`, but its config's."""

from functools import reduce
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.messages import MisuseError
from mergeplan.cli.options.mergekit_flags import mergekit_flags
from mergeplan.cli.options.tensors import tensor_options
from mergeplan.cli.options.units import BYTES, DEVICE, threads_option
from mergeplan.cli.pushing import publishing_options

if TYPE_CHECKING:
    from mergeplan.merging.options import MergeOptions

_OPTIONS = [
    threads_option("--num-threads"),
    click.option(
        "--out-shard-size",
        type=BYTES,
        default="5GB",
        show_default=True,
        help="Bytes of tensors in one output file: 5GB, 500MB, 2GiB; a bare k, M or B means 10^3,"
        " 10^6 or 10^9 bytes, as mergekit counts them.",
    ),
    click.option("--copy-tokenizer/--no-copy-tokenizer", default=True, help="[default: copy]"),
    click.option("--write-model-card/--no-write-model-card", default=True, help="[default: write]"),
    publishing_options,
    click.option("--allow-nonfinite", is_flag=True, help="Merge NaN and infinity all the same."),
    click.option(
        "--memory-limit",
        type=BYTES,
        help="Anonymous memory of the whole process: 256MiB, 1GB. [default: 256MiB at 2 threads]",
    ),
    click.option(
        "--allow-fallback-memory",
        is_flag=True,
        help="Let mergekit, where it must compute tensors itself, take more than the memory limit.",
    ),
    click.option(
        "--device",
        type=DEVICE,
        help="Merge with torch: on all GPUs, one of them, those that there are, or (slower than"
        " without this option) on the CPU.  [default: the CPU, without torch]",
    ),
    click.option(
        "--vram-limit",
        type=BYTES,
        help="Memory of each GPU that merging may take: 1GiB.  [default: most of what is free]",
    ),
    tensor_options,
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace OUT_DIR at the end, if it holds a model and nothing else.",
    ),
    click.option("--resume", is_flag=True, help="Go on from what an interrupted run left."),
    click.option("--discard", is_flag=True, help="Throw away what an interrupted run left."),
    click.option(
        "--ray",
        metavar="ADDRESS",
        help="Spread the output's shards over a Ray cluster: `auto`, its address, or `local`.",
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Check everything, say what `inspect` says of the merge, write nothing; with --json,"
        " print the plan.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
    click.option(
        "-q",
        "--quiet/--no-quiet",
        default=False,
        is_eager=True,
        help="No progress and no warnings.",
    ),
    mergekit_flags,
]


def merging_options(command: Any) -> Any:
    """Give a command all of them; `merge_options` takes its keyword arguments."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


def merge_options(
    given: dict[str, Any], ray: str | None, seed: int | None = None
) -> "MergeOptions":
    """What they say of the merge itself.

    Args:
        given: The command's keyword arguments, without those that `Running` has.

    Raises:
        click.UsageError: Some exclude each other.
    """
    from mergeplan.merging.options import MergeOptions

    cuda = given.pop("cuda"), given.pop("gpu_rich")
    device = given.pop("device") or ("cuda" if any(cuda) else None)
    options = MergeOptions(
        seed=seed,
        max_shard_bytes=given.pop("out_shard_size"),
        device=device,
        license=given.pop("licence"),
        **given,
    )
    if ray is not None and options.device is not None:
        raise click.UsageError("`--ray` spreads merges over CPUs: leave `--device` out")
    if options.vram_limit is not None and options.device is None:
        raise MisuseError(
            "`--vram-limit` says nothing without `--device`",
            "give `--device cuda` too, or `--memory-limit`, which bounds merges on the CPU",
        )
    if options.resume and options.discard:
        raise click.UsageError("`--resume` and `--discard` exclude each other")
    return options
