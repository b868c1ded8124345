"""What `calibrate` is to find out: how many experts to merge, or which ones."""

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from mergeplan.cli.options.units import Finite, NumberRange
from mergeplan.config.transfer import AUTO, RULE, TRANSFER
from mergeplan.evaluation.options import TOKENS

# Options that only one kind of question has.
_ONLY = {
    "suggest": ("ks", "target_loss", "fraction", "until", "lambda_scan"),
    "select": ("domains", "free_sum", "transfer", "tokens", "gradients"),
}
_OPTIONS = (
    click.option(
        "--for",
        "kind",
        type=click.Choice(["suggest", "select"]),
        default="suggest",
        show_default=True,
        help="The question: how many experts to merge, or which ones.",
    ),
    click.option(
        "--target",
        "--target-loss",
        "target_loss",
        type=Finite(),
        help="The question: which k reaches this loss, or value of the metric.",
    ),
    click.option(
        "--fraction",
        type=NumberRange(0, 1, min_open=True, max_open=True),
        default=0.9,
        show_default=True,
        help="The question without a target: which k has this share of the improvement.",
    ),
    click.option(
        "--until",
        default="k +- 1",
        show_default=True,
        help="Stop once the answer is known this well.",
    ),
    click.option(
        "--domains",
        metavar="CODE[=2],MATH",
        help="For select: domain to serve, or several with shares. [default: the macro mean]",
    ),
    click.option(
        "--free-sum",
        is_flag=True,
        help="For select: measure single experts, all, and some subsets at half strength too, so"
        " that weights may have any sum (average, task arithmetic).",
    ),
    click.option(
        "--transfer",
        type=click.Choice(TRANSFER),
        default=AUTO,
        show_default=True,
        help="For select: whether a larger base leans on a smaller one of the same experts, and"
        f" little is measured there: {RULE}",
    ),
    click.option(
        "--tokens",
        type=click.Choice(TOKENS),
        default="all",
        show_default=True,
        help="For select: score every merge on all documents, or on few at first and on more where"
        " it may be the best.",
    ),
    click.option(
        "--gradients/--no-gradients",
        default=None,
        help="For select: measure all merges with the slopes of their losses along the experts'"
        " weights, three times the work for one number more for each expert, or none. [default:"
        " those of the first round that say the most by them, where fewer passes are then enough]",
    ),
    click.option(
        "--confidence",
        type=NumberRange(0.5, 0.999),
        default=0.9,
        show_default=True,
        help="Of the answer: of the interval of k, or the chance that no other subset is better.",
    ),
)


def question_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options that ask the question, and say how well its answer is to be known."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def refuse_other_kind(kind: str) -> None:
    """An option that only the other question has would be ignored.

    Raises:
        click.UsageError: One was given.
    """
    context = click.get_current_context()
    other = "select" if kind == "suggest" else "suggest"
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "")
        if option.name in _ONLY[other] and given is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} has no meaning with --for {kind}")
