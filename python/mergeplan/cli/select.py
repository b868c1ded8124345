"""`mergeplan select`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.anyway import anyway_option
from mergeplan.cli.options.evaluation import evaluation_options, setup_of
from mergeplan.cli.options.measurements import doubts_of_table
from mergeplan.cli.options.overwrite import overwrite_option, refuse_outputs
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.vocabulary import mismatch_option
from mergeplan.config.transfer import AUTO, RULE, TRANSFER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergeplan.calibration.check_choice import Check
    from mergeplan.pool.geometry.file import Gram
    from mergeplan.selection.selection import Selections
    from mergeplan.verdict.contenders import Contender
    from mergeplan.verdict.verdict import Verdict


@click.command("select")
@click.argument("source", metavar="MEASUREMENTS", type=PATH)
@click.option(
    "--metric",
    help="Metric to serve, instead of --domains; `perplexity` is made of the losses.",
)
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
    help="A bound that has to hold on the expected value; may be given again.",
)
@click.option(
    "--max-loss", type=float, help="Take the smallest merge that is at least as good as this."
)
@click.option("--max-experts", type=click.IntRange(1), help="Most that may be merged.")
@click.option(
    "--weights",
    type=click.Choice(["equal", "simplex", "free"]),
    default="equal",
    show_default=True,
    help="What to write: the verdict's merge, the best weights that sum to 1, or of any sum.",
)
@click.option(
    "--front", metavar="CODE,MATH", help="Print the subsets that none beats on all of these."
)
@click.option(
    "--geometry",
    type=PATH,
    help="How the experts lie to each other: a file of `mergeplan similarity -o`.  [default: what"
    " the run left beside MEASUREMENTS, else by --pool]",
)
@click.option(
    "--no-geometry", is_flag=True, help="Take all experts alike: nothing is read of their weights."
)
@click.option(
    "--transfer",
    type=click.Choice(TRANSFER),
    default=AUTO,
    show_default=True,
    help=f"Whether a larger base leans on what a smaller one of the same experts shows: {RULE}",
)
@click.option(
    "--pool",
    "pool_file",
    type=PATH,
    help="The pool's YAML, for -o, --check, the geometry, and the command that measures more.",
)
@click.option("-o", "--out", type=PATH, help="Write the merge's YAML here.")
@click.option("--plot", "picture", type=PATH, help="A .png, .pdf or .svg file.")
@click.option(
    "--lora-exact",
    is_flag=True,
    help="With --check: keep base + adapter in float32 before merging, as `calibrate` was told to.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Merge it in memory and score it on the half of --pool's documents to check with.",
)
@mismatch_option
@evaluation_options(
    auto="float32 on a CPU, the base's own on a GPU",
    seed="Of masks and the choice of documents, as `calibrate` was given it.",
    seed_default="the pool's `random_seed`, or 0",
    half=False,
)
@overwrite_option
@anyway_option
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print the selection as JSON.")
def command(
    source: Path,
    domains: str | None,
    metric: str | None,
    method: str | None,
    keep: tuple[str, ...],
    max_loss: float | None,
    max_experts: int | None,
    weights: str,
    front: str | None,
    geometry: Path | None,
    no_geometry: bool,
    transfer: str,
    pool_file: Path | None,
    out: Path | None,
    picture: Path | None,
    check: bool,
    overwrite: bool,
    anyway: bool,
    as_json: bool,
    **scoring: Any,
) -> None:
    """Say which experts to merge, and with what weights, from measurements of a few merges.

    One verdict of all that was measured and of all that is predicted: every subset's value is
    predicted by a cubic form in the weights that is fitted to the measurements; every single
    expert, all of them, and some subsets of sizes between are enough. With --pool and -o, writes
    the YAML of the verdict's merge, or of the --weights that are asked for. Measure on one half of
    the documents (`calibrate --half selection`), and --check says what the merge gains on the other
    half. Exit code 4, and no file without --anyway, where nothing beats the base, keeps the bounds,
    or is as good as --max-loss asks.
    """
    from mergeplan.cli.verdicts import fail_by, written
    from mergeplan.display.figure import check_picture
    from mergeplan.measurements.rows import named_among
    from mergeplan.selection.data import selection_data
    from mergeplan.selection.fitting import fit_table
    from mergeplan.selection.front import front_table, pareto_front
    from mergeplan.selection.pictures import draw_selection
    from mergeplan.selection.problem import parse_constraint
    from mergeplan.selection.select import select
    from mergeplan.selection.selection import Wish, worse_weights
    from mergeplan.verdict.data import answer_data, verdict_data
    from mergeplan.verdict.from_selections import (
        EQUAL,
        better_weights,
        verdict_from_selections,
        wanted_of,
    )
    from mergeplan.verdict.write import merge_to_write

    if pool_file is None and (out is not None or check):
        raise click.UsageError(f"{'--check' if check else '-o'} needs --pool")
    if picture is not None:
        check_picture(picture)
    refuse_outputs(
        (out, picture),
        overwrite=overwrite,
        source=source,
        pool_file=pool_file,
        others=(geometry, scoring["scorer"]),
    )
    wish = Wish(domains, tuple(map(parse_constraint, keep)), max_loss, max_experts)
    if no_geometry and geometry is not None:
        raise click.UsageError("--geometry and --no-geometry exclude each other")
    grams = () if no_geometry else geometry or _grams(source, pool_file)
    if metric is not None and domains is not None:
        raise click.UsageError("--metric and --domains exclude each other")
    selections = select(
        source, wish=wish, method=method, metric=metric, geometry=grams, transfer=transfer
    )
    verdict = verdict_from_selections(
        source, selections, method=method, metric=metric, weights=weights, pool_file=pool_file
    )
    first = selections[0]
    aim, targets = first.table.target(first.law.name).metric, first.table.targets
    names = tuple(named_among(name, targets, aim) for name in front.split(",")) if front else ()
    points = pareto_front([fit_table(first.table, n) for n in names], max_experts) if names else []
    if picture is not None:
        draw_selection(first, picture, points, names, replace=overwrite)
    file = checked = None
    if pool_file is not None:
        wanted = wanted_of(first, weights) if first.best is not None else None
        # Also where merging does not pay: on other documents it may.
        one = merge_to_write(verdict, anyway=True, wanted=wanted)
        if check and one is not None:
            checked = _checked(one, verdict, selections, pool_file, source, scoring)
        elif check:
            warn("nothing was checked: no merge is known that keeps the bounds")
        if out is not None:
            file = written(
                verdict, source, pool_file, out, by="select", anyway=anyway, replace=overwrite,
                wanted=wanted, seed=scoring["seed"],
            )  # fmt: skip
    doubts = [*doubts_of_table(source), *selections.warnings]
    asked = {"simplex": first.weighted, "free": first.free}.get(weights)
    doubts += [why] if asked is not None and (why := worse_weights(first, asked)) else []
    doubts += checked.warnings if checked is not None else ()
    if as_json:
        data = {
            **answer_data(verdict),
            "warnings": doubts,
            "config": file.path if file else None,
            "subset": file.subset if file else None,
            "check": checked and dataclasses.asdict(checked),
            "verdict": verdict_data(verdict),
        }
        print_document("select", data | selection_data(selections, points))
    else:
        click.echo(verdict.summary())
        if weights == EQUAL and (hint := better_weights(first, verdict)) is not None:
            click.echo(f"  {hint}")
        if file is not None:
            click.echo(f"\n{file.text}")
        click.echo(f"\n{selections.summary()}")
        if points:
            click.echo(f"\n{front_table(points, names)}")
        if checked is not None:
            click.echo(f"\n{checked.summary()}")
    for message in doubts:
        if message not in verdict.notes:
            warn(message)
    fail_by(verdict)


def _grams(source: Path, pool_file: Path | None) -> "Sequence[Gram] | None":
    """How the pool's experts lie to each other, where the run has not left it beside the table."""
    from mergeplan.errors import InputError
    from mergeplan.pool.geometry.compare import similarity
    from mergeplan.pool.geometry.file import grams_of
    from mergeplan.selection.geometry import geometry_beside
    from mergeplan.system.progress import ProgressLine

    if pool_file is None or geometry_beside(source):
        return None
    line = ProgressLine(quiet=False)
    try:
        return grams_of(similarity(pool_file, progress=line))
    except InputError as error:
        warn(f"without the experts' geometry: {error}")
        return None
    finally:
        line.clear()


def _checked(
    one: "Contender",
    verdict: "Verdict",
    selections: "Selections",
    pool_file: Path,
    source: Path,
    scoring: dict[str, Any],
) -> "Check":
    """What a merge comes to on the other half of the pool's documents."""
    from mergeplan.calibration.check_choice import check_choice
    from mergeplan.pool.pool import load_pool

    pool, setup = load_pool(pool_file), setup_of(scoring, pool_file)
    return check_choice(one, verdict, selections, pool, source, setup)
