"""Options of the commands that score models."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import DEVICE, SEED
from mergeplan.evaluation.options import DTYPES, HALVES, EvaluationOptions
from mergeplan.evaluation.scorer import load_scorer

if TYPE_CHECKING:
    from mergeplan.calibration.setup import Setup
    from mergeplan.system.progress import ProgressLine

_half = click.option(
    "--half",
    type=click.Choice(HALVES),
    default="all",
    show_default=True,
    help="Score half of the documents: one to select by, or the other to check with.",
)


def evaluation_options(
    *, auto: str, seed: str, seed_default: str = "0", half: bool = True
) -> Callable[[Any], Any]:
    """How texts are chosen and cut, and where the model runs.

    Args:
        auto: What `--dtype auto` means.
        seed: What the seed decides.
        seed_default: What stands for one that is not given, which is `None`.
        half: Whether the user chooses the half of the documents.
    """
    options = (
        click.option(
            "--max-tokens",
            type=click.IntRange(1),
            help="Most tokens of a domain, by whole documents.",
        ),
        click.option("--seed", type=SEED, help=f"{seed}  [default: {seed_default}]"),
        click.option(
            "--max-length",
            type=click.IntRange(2),
            help="Tokens in a window. [default: the model's context, at most 4096]",
        ),
        click.option(
            "--stride",
            type=click.IntRange(1),
            help="Tokens by which windows of a long text overlap. [default: half a window]",
        ),
        click.option(
            "--batch-tokens", type=click.IntRange(1), help="Tokens in a batch. [default: by device]"
        ),
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            default="auto",
            show_default=True,
            help=f"auto: {auto}.",
        ),
        click.option("--device", type=DEVICE, default="auto", show_default=True),
        click.option(
            "--scorer",
            metavar="FILE.py",
            type=PATH,
            help="A measure of your own in place of token cross-entropy: this file's code runs.",
        ),
    )

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        if half:
            command = _half(command)
        return command

    return decorate


def evaluation_of(given: dict[str, Any], written: int | None = None) -> EvaluationOptions:
    """The options that decide what is scored.

    Args:
        written: The seed of a pool, for where none is given.
    """
    names = ("max_tokens", "max_length", "stride", "batch_tokens", "half")
    chosen = {name: given[name] for name in names if given.get(name) is not None}
    seed = written if given["seed"] is None else given["seed"]
    scorer = load_scorer(given["scorer"]) if given["scorer"] else None
    return EvaluationOptions(**chosen, seed=seed or 0, scorer=scorer)


def setup_of(given: dict[str, Any], pool_file: Path) -> "Setup":
    """How merges of a pool are measured.

    Args:
        given: What a command has of threads, memory limit and `tasks`, and all else.
        pool_file: Says the seed where none is given.
    """
    from mergeplan.calibration.setup import Setup
    from mergeplan.pool.pool import load_pool

    return Setup(
        evaluation_of(given, load_pool(pool_file).random_seed),
        given["dtype"],
        given["device"],
        given.get("threads"),
        given.get("memory_limit"),
        given["lora_exact"],
        given["allow_vocabulary_mismatch"],
        task_names(given.get("tasks", ())),
    )


def scoring_line(options: EvaluationOptions, quiet: bool) -> "ProgressLine":
    """A line of progress in what is scored."""
    from mergeplan.display.text import format_count
    from mergeplan.system.progress import ProgressLine

    return ProgressLine(quiet=quiet, amount=lambda count: f"{format_count(count)} {options.unit}")


def task_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """Tasks that were named one by one, or several joined by commas.

    >>> task_names(("a,b", "c.yaml"))
    ('a', 'b', 'c.yaml')
    """
    return tuple(filter(None, ",".join(given).split(",")))
