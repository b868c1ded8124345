"""`mergeplan plot`."""

from pathlib import Path
from typing import Any

import click

from mergeplan.cli.messages import report
from mergeplan.cli.options.measurements import fit_options, load, target_option
from mergeplan.cli.options.overwrite import overwrite_option, refuse_outputs
from mergeplan.cli.options.path import PATH


@click.command("plot")
@click.argument("source", metavar="LAW_OR_MEASUREMENTS", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="A .png, .pdf or .svg file.")
@overwrite_option
@target_option("Draw the target and the k that reach it.")
@fit_options
def command(
    source: Path, out: Path, overwrite: bool, target_loss: float | None, **fitting: Any
) -> None:
    """Draw each curve with its 90 % band, measured means and merges, residuals, and what is over N
    and over lambda.

    Needs matplotlib: pip install 'mergeplan[plot]'.
    """
    from mergeplan.display.figure import check_picture
    from mergeplan.law.loading import is_table
    from mergeplan.law.pictures import plot
    from mergeplan.measurements.file import load_measurements

    check_picture(out)
    refuse_outputs((out,), overwrite=overwrite, source=source)
    rows = load_measurements(source, fitting["metric"]) if is_table(source) else None
    result = load(source, **fitting)
    plot(result, out, target_loss, measurements=rows, replace=overwrite)
    report(str(out))
