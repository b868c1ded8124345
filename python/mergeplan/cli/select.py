"""`mergeplan select`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from mergeplan.cli.messages import warn
from mergeplan.cli.options.evaluation import evaluation_of, evaluation_options
from mergeplan.cli.options.overwrite import overwrite_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.vocabulary import mismatch_option
from mergeplan.display.text import finite


@click.command("select")
@click.argument("source", metavar="MEASUREMENTS", type=PATH)
@click.option(
    "--domains",
    metavar="CODE[=2],MATH",
    help="Domain or metric to serve, or several with shares. [default: the macro mean]",
)
@click.option("--method", help="Only the rows with this method label.")
@click.option(
    "--keep",
    multiple=True,
    metavar="CODE<=1.10",
    help="A bound that has to hold; may be given again.",
)
@click.option(
    "--max-loss", type=float, help="Take the smallest subset that is at least as good as this."
)
@click.option("--max-experts", type=click.IntRange(1), help="Most that may be merged.")
@click.option(
    "--weights",
    type=click.Choice(["equal", "simplex", "free"]),
    default="equal",
    show_default=True,
    help="What to write: the best subset, the best weights that sum to 1, or of any sum.",
)
@click.option(
    "--front", metavar="CODE,MATH", help="Print the subsets that none beats on all of these."
)
@click.option(
    "--geometry",
    type=PATH,
    help="How the experts lie to each other: a file of `mergeplan similarity -o`.",
)
@click.option("--pool", "pool_file", type=PATH, help="The pool's YAML.")
@click.option("-o", "--out", type=PATH, help="Write the merge's YAML here.")
@click.option("--plot", "picture", type=PATH, help="A .png or .svg file.")
@click.option(
    "--lora-exact",
    is_flag=True,
    help="With --check: keep base + adapter in float32 before merging, as `calibrate` was told to.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Merge the choice in memory and score it on the half of --pool's documents to check with.",
)
@mismatch_option
@evaluation_options(
    auto="float32 on a CPU, the base's own on a GPU",
    seed="Of masks and the choice of documents, as `calibrate` was given it.",
    seed_default="the pool's `random_seed`, or 0",
    half=False,
)
@overwrite_option
@click.option("--json", "as_json", is_flag=True, help="Print the selection as JSON.")
def command(
    source: Path,
    domains: str | None,
    method: str | None,
    keep: tuple[str, ...],
    max_loss: float | None,
    max_experts: int | None,
    weights: str,
    front: str | None,
    geometry: Path | None,
    pool_file: Path | None,
    out: Path | None,
    picture: Path | None,
    check: bool,
    lora_exact: bool,
    allow_vocabulary_mismatch: bool,
    overwrite: bool,
    as_json: bool,
    **scoring: Any,
) -> None:
    """Name the experts to merge, and their weights, from measurements of a few merges.

    Every subset's value is predicted by a cubic form in the weights that is fitted to the
    measurements; every single expert, all of them, and some subsets of sizes between are enough.
    With --pool and -o, writes the YAML of the choice. Measure on one half of the documents
    (`calibrate --half selection`), and --check says what the choice gains on the other half.
    Exit code 4 where nothing keeps the bounds.
    """
    from mergeplan.errors import UnreachableError
    from mergeplan.pool.pool import load_pool
    from mergeplan.selection.data import selection_data
    from mergeplan.selection.front import front_table, pareto_front
    from mergeplan.selection.pictures import draw_selection
    from mergeplan.selection.problem import parse_constraint
    from mergeplan.selection.select import chosen_of, fit_table, select
    from mergeplan.selection.selection import Wish
    from mergeplan.selection.write import yaml_of
    from mergeplan.system.writing import refuse_existing, write_durably

    if pool_file is None and (out is not None or check):
        raise click.UsageError(f"{'--check' if check else '-o'} needs --pool")
    if pool_file is not None and out is None and not check:
        raise click.UsageError("--pool goes with -o or --check")
    for path in (out, picture):
        if path is not None:
            refuse_existing(path, overwrite=overwrite)
    wish = Wish(domains, tuple(map(parse_constraint, keep)), max_loss, max_experts)
    selections = select(source, wish=wish, method=method, geometry=geometry)
    first = selections[0]
    names = tuple(front.split(",")) if front else ()
    points = pareto_front([fit_table(first.table, n) for n in names], max_experts) if names else []
    checked = None
    if check and first.best is not None and pool_file is not None:
        from mergeplan.calibration.check_choice import check_choice
        from mergeplan.calibration.setup import Setup

        pool = load_pool(pool_file)
        setup = Setup(
            evaluation_of(scoring, pool.random_seed),
            scoring["dtype"],
            scoring["device"],
            lora_exact=lora_exact,
            allow_vocabulary_mismatch=allow_vocabulary_mismatch,
        )
        checked = check_choice(first, chosen_of(first, weights), pool, source, setup)
    if as_json:
        data = selection_data(selections, points)
        data["check"] = checked and dataclasses.asdict(checked)
        click.echo(json.dumps(finite(data), allow_nan=False))
    else:
        click.echo(selections.summary())
    if points and not as_json:
        click.echo(f"\n{front_table(points, names)}")
    if checked is not None:
        from mergeplan.calibration.check_choice import check_text

        if not as_json:
            click.echo(f"\n{check_text(checked)}")
        if not checked.apart:
            warn(
                "the measurements were not made on the selection half alone, so that the check's"
                " documents may have had a part in the choice: measure with `--half selection`"
            )
    for message in first.warnings:
        warn(message)
    if picture is not None:
        draw_selection(first, picture, points, names, replace=overwrite)
    if first.best is None:
        raise UnreachableError(
            f"nothing keeps the bounds on `{first.law.name}`",
            "loosen a bound, allow more experts, or add experts to the pool",
        )
    if pool_file is not None and out is not None:
        text = yaml_of(first, chosen_of(first, weights), load_pool(pool_file))
        write_durably(out, text, replace=overwrite)
        if not as_json:
            click.echo(f"\nwrote {out}; next: mergeplan merge {out} OUT_DIR")
