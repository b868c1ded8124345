"""`mergeplan suggest`."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.anyway import anyway_option
from mergeplan.cli.options.measurements import (
    doubts_of_table,
    fit_options,
    fits_or_why,
    target_option,
)
from mergeplan.cli.options.overwrite import overwrite_option, refuse_outputs
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.units import SEED, CountList, NumberRange, Positive


@click.command("suggest")
@click.argument("source", metavar="LAW_OR_MEASUREMENTS", type=PATH)
@target_option("Loss to reach, in nats per token, or value of the metric.")
@click.option(
    "--fraction",
    type=NumberRange(0, 1, min_open=True),
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
    help="Base sizes that were not measured, to be told what each k is expected to give there:"
    " 7B,14B. Needs three measured sizes; with or without a target.",
)
@click.option(
    "--confidence",
    type=NumberRange(0.5, 0.999),
    default=0.9,
    show_default=True,
    help="Of all intervals.",
)
@fit_options
@click.option("--pool", "pool_file", type=PATH, help="The pool's YAML.")
@click.option("-o", "--out", type=PATH, help="Write the merge's YAML here.")
@overwrite_option
@anyway_option
@click.option(
    "--random-seed",
    type=SEED,
    help="Seed of a random subset, and of masks.  [default: the pool's `random_seed`, or 0]",
)
@allow_methods_option
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
    anyway: bool,
    random_seed: int | None,
    as_json: bool,
    **fitting: Any,
) -> None:
    """Say what to do: keep the base, take a single expert, merge, or measure more.

    One verdict of all that was measured and, where the rows name their experts, of what `select`
    predicts; then how many experts their average asks for, by which method and at what cost. Of a
    law file, which names no merges, the verdict is a number of experts. With --pool and -o, writes
    the mergekit YAML of the merge, which `mergeplan merge` and `mergekit-yaml` both run. Exit code
    4, and no file without --anyway, where nothing beats the base or reaches the target.
    """
    from mergeplan.cli.verdicts import fail_by, refuse_pool_alone, written
    from mergeplan.law.costs import CostModel, load_costs
    from mergeplan.law.diagnose import all_signs
    from mergeplan.law.recommend import recommend
    from mergeplan.law.recommendation import Goal
    from mergeplan.verdict.answer import curves_beside, verdict_of
    from mergeplan.verdict.data import answer_data, verdict_data

    refuse_pool_alone(pool_file, out)
    refuse_outputs(
        (out,), overwrite=overwrite, source=source, pool_file=pool_file, others=(cost_file,)
    )
    costs = load_costs(cost_file) if cost_file else CostModel()
    goal = Goal(target_loss, fraction, epsilon, budget, confidence)
    fits, missing = fits_or_why(source, fitting)
    recommendation = recommend(fits, goal=goal, costs=costs, sizes=sizes) if fits else None
    verdict = verdict_of(
        source,
        domain=fitting["domain"],
        metric=fitting["metric"],
        method=fitting["method"],
        goal=goal,
        costs=costs,
        pool_file=pool_file,
        recommendation=recommendation,
    )
    file = None
    if pool_file is not None and out is not None:
        drawn = recommendation.best if recommendation and verdict.kind == "k" else None
        file = written(
            verdict, source, pool_file, out, by="suggest", anyway=anyway, replace=overwrite,
            drawn=drawn, seed=random_seed,
        )  # fmt: skip
    beside = curves_beside(recommendation, verdict) if recommendation else None
    warnings = doubts_of_table(source)
    warnings += [f"no curve of means: {missing}"] if missing is not None else []
    if fits is not None and beside is not None:
        warnings += fits.skipped
        warnings += (*beside.warnings, *beside.best.warnings, *all_signs(fits))
    if as_json:
        data = {
            **answer_data(verdict),
            "warnings": warnings,
            "config": file.path if file else None,
            "subset": file.subset if file else None,
            "verdict": verdict_data(verdict),
        }
        curves = dataclasses.asdict(recommendation) if recommendation else {}
        print_document("suggest", data | {**curves, "warnings": warnings})
    else:
        click.echo(verdict.summary())
        if file is not None:
            click.echo(f"\n{file.text}")
        if beside is not None:
            texts = not verdict.few_documents
            click.echo(f"\n{beside.summary(warnings=False, other_texts=texts)}")
    for message in warnings:
        warn(message)
    fail_by(verdict)
