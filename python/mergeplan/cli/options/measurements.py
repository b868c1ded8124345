"""Options shared by the commands that read measurements."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.options.units import Finite
from mergeplan.law.formulas import FORMS
from mergeplan.system.ranges import LARGEST_POOL

if TYPE_CHECKING:
    from mergeplan.law.fit_result import FitResult

METRIC = click.option(
    "--metric",
    help="This metric of the table, on its own scale; `perplexity` is made of the losses."
    "  [default: the losses, or the only metric there is]",
)
_OPTIONS = (
    METRIC,
    click.option(
        "--domain", help="Fit this domain. [default: the macro mean, or the only one there is]"
    ),
    click.option("--method", help="Only the rows with this method label."),
    click.option(
        "--pool-size",
        type=click.IntRange(1, LARGEST_POOL),
        help="Number of experts that there are. [default: from the file]",
    ),
    click.option(
        "--form",
        type=click.Choice(FORMS),
        default=FORMS[0],
        show_default=True,
        help="Linf + A/(k+b), or with a term D·k/(k+q) for curves that turn up again.",
    ),
    click.option("--robust", is_flag=True, help="Weigh down means that lie far from the curve."),
)


def target_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A loss, or a value of a metric, that is to be reached."""
    return click.option("--target", "--target-loss", "target_loss", type=Finite(), help=text)


def fit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options that say what to fit, and how."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load(source: Path, **given: Any) -> "FitResult":
    """Fit a CSV, or read a law, for which no option of the fit may be given."""
    from mergeplan.law.fit import fit
    from mergeplan.law.loading import fits_of, is_law

    if not is_law(source):
        return fit(source, **given)
    for name, value in given.items():
        if value not in (None, False, FORMS[0]):
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} is decided when a law is fitted; give it to `fit`")
    return fits_of(source)


def fits_or_why(source: Path, given: dict[str, Any]) -> "tuple[FitResult | None, str | None]":
    """What `load` gives; of a table of named merges that no curve can be fitted to, why,
    but for a scan of lambda."""
    from mergeplan.errors import InputError
    from mergeplan.law.fit import ONLY_A_SCAN
    from mergeplan.law.loading import is_law
    from mergeplan.measurements.file import read_rows

    try:
        return load(source, **given), None
    except InputError as error:
        if is_law(source):
            raise
        rows, _ = read_rows(source)
        if not error.message.startswith("nothing to fit") or not any(row.subset for row in rows):
            raise
        # Nobody expects a curve of a scan.
        return None, None if error.message == ONLY_A_SCAN else error.message


def doubts_of_table(source: Path) -> list[str]:
    """What looks wrong in a table of measurements; nothing of a law or a pipe."""
    from mergeplan.evaluation.edited import edited_rows
    from mergeplan.law.loading import is_law
    from mergeplan.measurements.doubts import doubtful_shares, doubtful_sizes, doubtful_texts
    from mergeplan.measurements.file import read_rows
    from mergeplan.system.files import expanded

    path = expanded(source)
    if is_law(path) or not path.is_file():
        return []
    rows, _ = read_rows(path)
    doubts = [*doubtful_sizes(rows), *doubtful_texts(rows), *doubtful_shares(rows)]
    doubts.append(edited_rows(path, rows))
    return [text for text in doubts if text]
