"""`mergeplan suggest`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mergeplan.cli import warn
from mergeplan.cli.measured import domain_option, method_option, pool_size_option
from mergeplan.cli.units import SEED

if TYPE_CHECKING:
    from mergeplan.fitting import FitResult


@click.command("suggest")
@click.argument("source", metavar="LAW_OR_MEASUREMENTS", type=click.Path(path_type=Path))
@click.option(
    "--target-loss",
    type=click.FloatRange(0, min_open=True),
    required=True,
    help="Loss to reach, in nats per token.",
)
@domain_option
@method_option
@pool_size_option
@click.option("--pool", "pool_file", type=click.Path(path_type=Path), help="The pool's YAML.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the merge's YAML here.")
@click.option(
    "--random-seed", type=SEED, default=0, show_default=True, help="Seed of a random subset."
)
@click.option("--json", "as_json", is_flag=True, help="Print the recommendation as JSON.")
def command(
    source: Path,
    target_loss: float,
    domain: str | None,
    method: str | None,
    pool_size: int | None,
    pool_file: Path | None,
    out: Path | None,
    random_seed: int,
    as_json: bool,
) -> None:
    """Recommend the smallest merge whose expected loss is at or below the target.

    The expectation is over random subsets of the pool. With --pool and -o, writes the mergekit YAML
    of such a merge, which `mergeplan merge` and `mergekit-yaml` both run. Exit code 4, and no file,
    where nothing reaches the target.
    """
    from mergeplan.chosen import choose_merge
    from mergeplan.errors import UnreachableError
    from mergeplan.output import write_durably
    from mergeplan.pool import load_pool
    from mergeplan.suggest import describe, recommend

    if (pool_file is None) != (out is None):
        raise click.UsageError("--pool and -o belong together")
    result = _load(source, domain, method, pool_size)
    recommendation = recommend(result, target_loss)
    best = recommendation.best
    chosen = None
    if recommendation.reached and pool_file is not None and out is not None:
        chosen = choose_merge(best, load_pool(pool_file), target_loss=target_loss, seed=random_seed)
        write_durably(out, chosen.text)
    if as_json:
        data = dataclasses.asdict(recommendation)
        data["reached"] = recommendation.reached
        data["subset"] = chosen.subset if chosen else None
        click.echo(json.dumps(data))
    else:
        click.echo(describe(recommendation))
        if chosen is not None:
            click.echo(f"\n{chosen.reason}\nwrote {out}; next: mergeplan merge {out} OUT_DIR")
    for skipped in result.skipped:
        warn(skipped)
    for message in best.warnings:
        warn(message)
    if not recommendation.reached:
        raise UnreachableError(
            f"nothing reaches a loss of {target_loss:g}: {best.reasons[-1]}",
            "raise the target, add experts to the pool, or measure a larger base",
        )


def _load(
    source: Path, domain: str | None, method: str | None, pool_size: int | None
) -> "FitResult":
    if source.suffix.lower() != ".json":
        from mergeplan.fitting import fit

        return fit(source, domain=domain, method=method, pool_size=pool_size)
    from mergeplan.lawfile import load_law

    given = {"--domain": domain, "--method": method, "--pool-size": pool_size}
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"{name} is decided when the law is fitted; give it to `fit`")
    return load_law(source)
