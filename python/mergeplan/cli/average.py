"""`mergeplan average`."""

from pathlib import Path
from typing import Any

import click

from mergeplan.cli.options.merging import merge_options, merging_options
from mergeplan.cli.options.path import PATH, complete_files
from mergeplan.cli.running import Running, run_merges
from mergeplan.config.schedule import SCHEDULES


@click.command("average")
@click.argument(
    "checkpoints", metavar="'RUN/STEP-*'", nargs=-1, required=True, shell_complete=complete_files
)
@click.option("-o", "--out", metavar="OUT_DIR", type=PATH, help="Folder to create.")
@click.option(
    "--schedule",
    "schedules",
    type=click.Choice(SCHEDULES),
    multiple=True,
    default=("mean",),
    show_default=True,
    help="How much each checkpoint counts: alike; by its position; ever less with age; or as a"
    " decay of the learning rate after the oldest would have it, along a cosine or 1 - sqrt (a"
    " linear decay is the mean). Can be repeated.",
)
@click.option(
    "--last",
    metavar="N",
    type=click.IntRange(1),
    multiple=True,
    help="Only the N newest. Can be repeated.  [default: all]",
)
@click.option(
    "--every",
    metavar="S",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Of the checkpoints every S-th, counted back from the newest.",
)
@click.option(
    "--until",
    metavar="STEP",
    type=click.IntRange(0),
    multiple=True,
    help="The newest checkpoint to take. Can be repeated.  [default: the newest there is]",
)
@click.option(
    "--decay",
    type=float,
    help="Of ema: what a checkpoint counts of what the next one does, such as 0.9.",
)
@click.option(
    "--out-dtype",
    metavar="DTYPE",
    help="float32, bfloat16 or float16; sums are in float32.  [default: the newest checkpoint's]",
)
@click.option(
    "--print-config", is_flag=True, help="Only print the merge as mergekit's YAML, weights and all."
)
@merging_options
def command(
    checkpoints: tuple[str, ...],
    out: Path | None,
    schedules: tuple[str, ...],
    last: tuple[int, ...],
    every: int,
    until: tuple[int, ...],
    decay: float | None,
    out_dtype: str | None,
    print_config: bool,
    **given: Any,
) -> None:
    """Average the checkpoints of one run, in the order of the steps that their names tell.

    It is a `linear` merge: written, resumed and verified as `merge` does. The newest checkpoint
    gives config and tokenizer. --schedule, --last and --until may be repeated: each combination is
    an average of its own, in a folder of OUT_DIR, and all are made in one read.
    """
    from mergeplan.config.write import to_yaml
    from mergeplan.merging.options import MergeRequest
    from mergeplan.planning.averages import AverageOptions, average_configs

    many = max(len(schedules), len(last), len(until)) > 1
    if out is None and not print_config:
        raise click.UsageError("missing option `-o`: the folder to create")
    if many and given["push_to_hub"]:
        raise click.UsageError("`--push-to-hub` takes one average: repeat no option")
    wanted = AverageOptions(schedules, last, until, every, decay, out_dtype)
    how = Running.of(given, out or Path(), many=many)
    options = merge_options(given, how.ray)
    configs = average_configs(checkpoints, wanted, options.planning().opening)
    if print_config:
        click.echo("---\n".join(map(to_yaml, configs.values())), nl=False)
        return
    requests = [MergeRequest(config, how.out / name) for name, config in configs.items()]
    run_merges(lambda: requests, options, how)
