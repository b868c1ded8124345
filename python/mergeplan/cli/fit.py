"""`mergeplan fit`."""

import json
from pathlib import Path

import click

from mergeplan.cli import warn
from mergeplan.cli.measured import domain_option, method_option, pool_size_option


@click.command("fit")
@click.argument("measurements", metavar="MEASUREMENTS.csv", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the law to this file.")
@domain_option
@method_option
@pool_size_option
@click.option("--json", "as_json", is_flag=True, help="Print the law as JSON.")
def command(
    measurements: Path,
    out: Path | None,
    domain: str | None,
    method: str | None,
    pool_size: int | None,
    as_json: bool,
) -> None:
    """Fit L(k) = Linf + A / (k + b) to mean losses, for each method and base size.

    MEASUREMENTS.csv needs the columns `k` and `loss_nats`; `subset`, `method`, `options`,
    `n_params`, `domain` and `pool_size` are used where present. Weights are proportional to k.
    """
    from mergeplan.fitting import fit, name_of
    from mergeplan.lawfile import to_data
    from mergeplan.output import write_durably

    result = fit(measurements, domain=domain, method=method, pool_size=pool_size)
    data = to_data(result)
    if out is not None:
        write_durably(out, json.dumps(data, indent=1) + "\n")
    for skipped in result.skipped:
        warn(skipped)
    if as_json:
        click.echo(json.dumps(data))
        return
    click.echo("floor    tail     offset   R²       domain      method and size")
    for entry in result.fits:
        law, series = entry.law, entry.series
        click.echo(
            f"{law.floor:<8.5f} {law.tail:<8.5f} {law.offset:<8.4g} {entry.r2:<8.5f}"
            f" {series.domain or '-':<11} {name_of(series)}"
        )
        for message in entry.warnings:
            warn(f"{name_of(series)}: {message}")
