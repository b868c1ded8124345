"""`mergeplan fit`."""

from pathlib import Path
from typing import Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.measurements import doubts_of_table, fit_options
from mergeplan.cli.options.overwrite import overwrite_option, refuse_outputs
from mergeplan.cli.options.path import PATH


@click.command("fit")
@click.argument("measurements", metavar="MEASUREMENTS.csv", type=PATH)
@click.option("-o", "--out", type=PATH, help="Write the law to this file.")
@overwrite_option
@fit_options
@click.option("--json", "as_json", is_flag=True, help="Print the law as JSON.")
def command(
    measurements: Path,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    **fitting: Any,
) -> None:
    """Fit the merging law to mean losses, for each method and base size and over all sizes.

    MEASUREMENTS.csv needs the columns `k` and `loss_nats`, or `k`, `metric`, `value` and `better`;
    `subset`, `method`, `options`, `n_params`, `domain`, `pool_size`, `loss_se`, `value_se`,
    `n_items` and `seed` are used where present. Where subsets were measured one by one, each mean
    is weighted by its variance, else by k. A metric whose means become better and worse with k by
    more than their error has no law.
    """
    from mergeplan.law.diagnose import all_signs
    from mergeplan.law.file import law_data, save_law
    from mergeplan.law.fit import fit
    from mergeplan.law.series import name_of

    refuse_outputs((out,), overwrite=overwrite, source=measurements)
    result = fit(measurements, **fitting)
    if out is not None:
        save_law(result, out, replace=overwrite)
    warnings = [*doubts_of_table(measurements), *result.skipped]
    warnings += [f"{name_of(one.series)}: {text}" for one in result.fits for text in one.warnings]
    warnings += all_signs(result)
    if as_json:
        law = law_data(result)
        first = {"fits": law.pop("fits"), "joints": law.pop("joints"), "warnings": warnings}
        print_document("fit", first | law)
    else:
        click.echo(result.summary(warnings=False))
    for message in warnings:
        warn(message)
