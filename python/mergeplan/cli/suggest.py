"""`mergeplan suggest`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.messages import warn
from mergeplan.cli.options.measurements import fit_options, load
from mergeplan.cli.options.overwrite import overwrite_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import SEED, CountList, Positive
from mergeplan.display.text import finite, format_count

if TYPE_CHECKING:
    from mergeplan.selection.smallest import Smallest


@click.command("suggest")
@click.argument("source", metavar="LAW_OR_MEASUREMENTS", type=PATH)
@click.option("--target-loss", type=Positive(), help="Loss to reach, in nats per token.")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Without a target: share of the improvement from one expert to all of them.",
)
@click.option("--epsilon", type=Positive(), help="Also say from which k the floor is this near.")
@click.option("--budget", type=Positive(), help="Most that a merge may cost.")
@click.option(
    "--cost",
    "cost_file",
    type=PATH,
    help="Costs (YAML: unit, train, train_fixed, merge, serve). [default: GPU hours of the paper]",
)
@click.option(
    "--sizes",
    type=CountList(),
    default=(),
    help="Base sizes to ask the joint law about too: 7B,14B.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 0.999),
    default=0.9,
    show_default=True,
    help="Of all intervals.",
)
@fit_options
@click.option("--pool", "pool_file", type=PATH, help="The pool's YAML.")
@click.option("-o", "--out", type=PATH, help="Write the merge's YAML here.")
@overwrite_option
@click.option(
    "--random-seed",
    type=SEED,
    help="Seed of a random subset, and of masks.  [default: the pool's `random_seed`, or 0]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the recommendation as JSON.")
def command(
    source: Path,
    target_loss: float | None,
    fraction: float,
    epsilon: float | None,
    budget: float | None,
    cost_file: Path | None,
    sizes: tuple[float, ...],
    confidence: float,
    pool_file: Path | None,
    out: Path | None,
    overwrite: bool,
    random_seed: int | None,
    as_json: bool,
    **fitting: Any,
) -> None:
    """Recommend how many experts to merge, at which base size and by which method.

    The loss that is compared with the target is the expected loss of a random subset of the pool.
    With --pool and -o, writes the mergekit YAML of such a merge, which `mergeplan merge` and
    `mergekit-yaml` both run. Exit code 4, and no file, where nothing reaches the target.
    """
    from mergeplan.errors import UnreachableError
    from mergeplan.law.costs import CostModel, load_costs
    from mergeplan.law.diagnose import all_signs
    from mergeplan.law.loading import is_law
    from mergeplan.law.recommend import recommend
    from mergeplan.law.recommendation import Goal
    from mergeplan.law.write import choose_merge
    from mergeplan.pool.pool import load_pool
    from mergeplan.selection.smallest import smallest_subset
    from mergeplan.system.writing import refuse_existing, write_durably

    if (pool_file is None) != (out is None):
        raise click.UsageError("--pool and -o belong together")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    costs = load_costs(cost_file) if cost_file else CostModel()
    result = load(source, **fitting)
    goal = Goal(target_loss, fraction, epsilon, budget, confidence)
    recommendation = recommend(result, goal=goal, costs=costs, sizes=sizes)
    best = recommendation.best
    chosen = None
    if best.k is not None and pool_file is not None and out is not None:
        wish = f"for {fraction:.0%} of the improvement"
        if target_loss is not None:
            wish = f"for a target loss of {target_loss:g} nats"
        chosen = choose_merge(best, load_pool(pool_file), wish=wish, seed=random_seed)
        write_durably(out, chosen.text, replace=overwrite)
    smallest = None
    if target_loss is not None and not is_law(source):
        smallest = smallest_subset(source, target_loss, fitting.get("domain"))
    if as_json:
        data = dataclasses.asdict(recommendation)
        data |= {
            "reached": recommendation.reached,
            "subset": chosen.subset if chosen else None,
            "smallest": dataclasses.asdict(smallest) if smallest else None,
        }
        click.echo(json.dumps(finite(data)))
    else:
        click.echo(recommendation.summary(warnings=False))
        if smallest is not None:
            click.echo(f"\n{_of_smallest(smallest, source, target_loss)}")
        if chosen is not None:
            click.echo(f"\n{chosen.reason}\nwrote {out}; next: mergeplan merge {out} OUT_DIR")
    for message in (*result.skipped, *best.warnings, *all_signs(result)):
        warn(message)
    if recommendation.reached and best.k is None:
        warn("only a size that was not measured reaches it: no YAML can be written for that")
    if not recommendation.reached:
        wish = "the budget" if target_loss is None else f"a loss of {target_loss:g}"
        raise UnreachableError(
            f"nothing reaches {wish}: {best.reasons[-1]}",
            "raise the target, add experts to the pool, or measure a larger base",
        )


def _of_smallest(found: "Smallest", source: Path, target_loss: float | None) -> str:
    choice = found.choice
    size = f" on {format_count(found.n_params)} parameters" if found.n_params else ""
    value = f"{choice.value:.4f}"
    if not choice.measured:
        value += f", {choice.low:.4f} to {choice.high:.4f}"
    how = "measured" if choice.measured else "predicted"
    return (
        f"the smallest single subset {how} to reach it: {'+'.join(choice.subset)} by"
        f" {found.method}{size} ({value}); to write it:"
        f" mergeplan select {source} --method {found.method} --max-loss {target_loss:g}"
    )
