"""`mergeplan calibrate`."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.messages import warn
from mergeplan.cli.options.anyway import anyway_option
from mergeplan.cli.options.evaluation import evaluation_options, setup_of
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH
from mergeplan.cli.options.question import question_options, refuse_other_kind
from mergeplan.cli.options.units import BYTES, Integers, threads_option
from mergeplan.cli.options.vocabulary import mismatch_option
from mergeplan.cli.verdicts import fail_by
from mergeplan.config.transfer import REQUIRED
from mergeplan.display.text import counted, format_bytes, format_count
from mergeplan.evaluation.options import HALVES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mergeplan.calibration.calibrate import Calibration
    from mergeplan.calibration.config_file import BareSummary
    from mergeplan.calibration.curve_report import Summary
    from mergeplan.calibration.forecast import CalibrationForecast
    from mergeplan.calibration.limits import Spending
    from mergeplan.calibration.options import CalibrateOptions
    from mergeplan.calibration.run_folder import RunFolder
    from mergeplan.calibration.subset_report import ChoiceSummary
    from mergeplan.pool.subsets import SubsetMerge
    from mergeplan.verdict.contenders import Contender
    from mergeplan.verdict.verdict import Verdict


@click.command("calibrate")
@click.argument("pool_file", metavar="POOL.yml", type=PATH)
@click.option(
    "-o",
    "--out",
    "folder",
    required=True,
    metavar="RUN_DIR",
    type=PATH,
    help="The run's folder; one that exists goes on where it stopped.",
)
@click.option("--method", "methods", multiple=True, help="A method of the pool. [default: all]")
@click.option(
    "--k",
    "ks",
    type=Integers(1, 10_000),
    default=(),
    help="Measure these k only: 2,4; 1 and all too.",
)
@click.option(
    "--subsets",
    metavar="SUBSETS.csv",
    type=PATH,
    help="Measure just what `mergeplan sample` listed here.",
)
@question_options
@click.option(
    "--budget",
    help="Most that each method may take at each size: `60 merges`, `2M tokens`, `1.5h`, or several"
    " joined by commas.",
)
@click.option("--lambda-scan/--no-lambda-scan", default=True, help="[default: scan]")
@click.option(
    "--also",
    multiple=True,
    metavar="JS+JSON",
    help="Measure this subset too, by each method; may be given again.",
)
@click.option(
    "--half",
    type=click.Choice(HALVES),
    help="Score half of the documents: one to select by, or the other to check with. [default:"
    " selection, where every domain has 12 documents or more in each half; else all]",
)
@evaluation_options(
    auto="the base's own on a GPU; on a CPU float32, or bfloat16 where that is faster and some"
    " merges in both show that no decision changes",
    seed="Of subsets, masks and the choice of documents.",
    seed_default="the pool's `random_seed`, or 0",
    half=False,
)
@click.option(
    "--tasks",
    multiple=True,
    help="Run tasks of lm-evaluation-harness on each merge too, by name or YAML file: a,b."
    " Repeatable.",
)
@threads_option(what="Threads of a worker.")
@click.option(
    "--memory-limit",
    type=BYTES,
    help="What merging, and gradients, may take beside the model.",
)
@click.option(
    "--lora-exact", is_flag=True, help="Keep base + adapter in float32 before merging, as in merge."
)
@mismatch_option
@anyway_option
@click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster: `auto`, an address, `local`.")
@click.option("--dry-run", is_flag=True, help="Check everything, and say what would be measured.")
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no word of rounds, no warnings.")
def command(
    pool_file: Path, folder: Path, dry_run: bool, as_json: bool, quiet: bool, **given: Any
) -> None:
    """Measure merges of a pool's experts until their law answers the question.

    Experts are merged into a model in memory and scored on the pool's texts; no checkpoint is
    written. Each measurement is kept at once: the same command goes on after a kill. Ends with
    one verdict (keep the base, take a single expert, merge, or measure more), the verdict's
    merge on documents that had no part in it, and measurements.csv, law.json, law.png, merge.yml
    and report.html, a page of all that, in RUN_DIR; with --for select, which asks for the best
    subset, with what every subset is predicted to give. Exit code 4, and no merge.yml without
    --anyway, where nothing beats the base or reaches the target.
    """
    from mergeplan.calibration.calibrate import calibrate
    from mergeplan.calibration.config_file import summarize_unfitted
    from mergeplan.calibration.forecast import forecast_calibration
    from mergeplan.calibration.run_folder import has_measured
    from mergeplan.cli.merges_line import MergesLine
    from mergeplan.errors import InputError
    from mergeplan.pool.pool import load_pool
    from mergeplan.reporting.in_run import RunPage

    refuse_other_kind(given["kind"])
    options = _options(pool_file, given)
    unit = _unit(pool_file, options)
    if dry_run:
        found = forecast_calibration(pool_file, folder, options)
        if as_json:
            print_document("forecast", dataclasses.asdict(found))
        else:
            click.echo(_forecast(found, unit))
        return
    line = MergesLine(quiet=quiet, unit=unit)

    def say(text: str) -> None:
        line.clear()
        if not quiet:
            click.echo(text, err=True)

    summaries: list[Summary | ChoiceSummary | BareSummary] = []
    pages: list[Path | None] = []
    page = RunPage(pool_file)

    def conclude(run: "RunFolder", verdict: "Verdict | None") -> None:
        line.clear()
        pages.append(page.write(run))
        try:
            summaries.append(_summary(pool_file, run, verdict, given))
        except InputError as error:
            if verdict is None or given["transfer"] == REQUIRED:
                raise
            pool, again = load_pool(pool_file), "the same command with a larger `--budget`"
            why = f"nothing can be predicted yet: {error.message}"
            summaries.append(
                summarize_unfitted(run, pool, verdict, why, again, anyway=given["anyway"])
            )

    try:
        done = calibrate(
            pool_file,
            folder,
            options,
            say=say,
            progress=False,
            conclude=conclude,
            command=_same_command,
            each_round=page.after_round,
            each_merge=line.tell,
        )
    except (KeyboardInterrupt, SystemExit):
        line.clear()
        stays = f"what is measured stays in `{folder}`; this goes on:"
        none = "stopped before a merge was measured; this begins again:"
        click.echo(stays if has_measured(folder) else none, err=True)
        click.echo(f"  {_same_command(())}", err=True)
        raise
    finally:
        line.clear()
    [summary] = summaries
    if as_json:
        print_document("calibrate", _as_data(done, summary))
    else:
        click.echo(_text(done, summary))
        for path in filter(None, pages):
            click.echo(f"report: {path}, for a browser")
    if not quiet:
        for warning in (*done.warnings, *summary.warnings):
            warn(warning)
    if done.verdict is not None:
        fail_by(done.verdict)


def _same_command(merges: "Sequence[Contender]") -> str:
    """This very command; where merges are named, with those measured beside and no others."""
    if not merges:
        return shlex.join(["mergeplan", *sys.argv[1:]])
    words, given = iter(sys.argv[1:]), []
    for word in words:
        if word == "--also":
            next(words, None)
        elif not word.startswith("--also="):
            given.append(word)
    named = ["--also=" + "+".join(one.merge.subset) for one in merges if one.merge.equal]
    return shlex.join(["mergeplan", *given, *named])


def _text(done: "Calibration", summary: "Summary | ChoiceSummary | BareSummary") -> str:
    parts = [done.tally()]
    if done.verdict is not None:
        head, *rest = done.verdict.summary().split("\n")
        doubts = [] if done.held_back is None else done.held_back.warnings()
        parts.append("\n".join([head, *(f"  but {doubt}" for doubt in doubts), *rest]))
    if done.held_back is not None:
        parts.append(done.held_back.text())
    return "\n\n".join([*parts, summary.text])


def _summary(
    pool_file: Path, run: "RunFolder", verdict: "Verdict | None", given: dict[str, Any]
) -> "Summary | ChoiceSummary | BareSummary":
    anyway = given["anyway"]
    if given["kind"] == "select":
        from mergeplan.calibration.subset_report import summarize_choice

        return summarize_choice(
            run,
            pool_file,
            given["domains"],
            verdict,
            transfer=given["transfer"],
            anyway=anyway,
        )
    from mergeplan.calibration.curve_report import summarize
    from mergeplan.law.recommendation import Goal
    from mergeplan.pool.pool import load_pool

    goal = Goal(given["target_loss"], given["fraction"], confidence=given["confidence"])
    return summarize(run, load_pool(pool_file), goal, verdict, anyway=anyway)


def _options(pool_file: Path, given: dict[str, Any]) -> "CalibrateOptions":
    from mergeplan.calibration.decision import CurveGoal
    from mergeplan.calibration.limits import Budget, parse_budget, parse_until
    from mergeplan.calibration.options import CalibrateOptions, ChoiceGoal

    choosing = given["kind"] == "select"
    return CalibrateOptions(
        methods=given["methods"],
        wish=CurveGoal(given["target_loss"], given["fraction"], given["confidence"]),
        choosing=(
            ChoiceGoal(given["domains"], given["free_sum"], given["transfer"]) if choosing else None
        ),
        ks=tuple(given["ks"]),
        until=parse_until(given["until"]),
        budget=parse_budget(given["budget"]) if given["budget"] else Budget(),
        scan=given["lambda_scan"],
        seed=given["seed"],
        also=tuple(tuple(name.strip() for name in one.split("+")) for one in given["also"]),
        listed=_listed(pool_file, given["subsets"]),
        tokens=given["tokens"],
        gradients=given["gradients"],
        half=given["half"],
        setup=setup_of(given, pool_file),
        ray=given["ray"],
    )


def _listed(pool_file: Path, path: Path | None) -> "tuple[SubsetMerge, ...] | None":
    if path is None:
        return None
    from mergeplan.errors import InputError
    from mergeplan.pool.pool import load_pool
    from mergeplan.pool.subsets import pool_paths_hash, read_subsets

    rows = read_subsets(path)
    if any(row.pool_paths_hash != pool_paths_hash(load_pool(pool_file)) for row in rows):
        raise InputError(
            f"`{path}` was written for another pool than `{pool_file}`",
            f"list its subsets anew: `mergeplan sample {pool_file} -o DIR`",
        )
    return tuple(row.merge for row in rows)


def _unit(pool_file: Path, options: "CalibrateOptions") -> str:
    """What a model is scored on, in the plural."""
    from mergeplan.pool.pool import load_pool

    if options.setup.evaluation.scorer is not None:
        return "documents"
    return "tokens" if load_pool(pool_file).data else "items"


def _forecast(found: "CalibrationForecast", unit: str) -> str:
    def line(what: str, spent: "Spending") -> str:
        time = f", about {spent.seconds / 60:,.0f} min" if found.seconds_each else ""
        return f"{what}: {counted(spent.merges, 'merges')}, {spent.tokens:,.0f} {unit}{time}"

    lines = [line("at least", found.least), line("at most", found.most)]
    for one in found.sizes if len(found.sizes) > 1 else ():
        lean = ", leaning on a smaller one" if one.leaning else ""
        if one.not_alike:
            lean = f", leaning on no smaller one: {one.not_alike}"
        lines += [
            f"the {format_count(one.n_params)} base{lean}:",
            line("  at least", one.least),
            line("  at most", one.most),
        ]
    for own in found.slopes:
        lines += [
            f"a merge with slopes counts three passes; for them base and experts"
            f" ({format_count(own.n_params)}) are read {counted(own.reads, 'times')},"
            f" {format_bytes(own.read_bytes)}; memory beside the model: at most"
            f" {format_bytes(own.memory_bytes)}"
        ]
    if found.compared_bytes:
        size = format_bytes(found.compared_bytes)
        lines.append(f"before that the experts are compared by their weights: {size} are read once")
    if found.kept:
        lines.append(f"measured already: {counted(found.kept, 'merges')}")
    else:
        lines.append("time is known once the first merges are measured")
    return "\n".join(lines)


def _as_data(
    done: "Calibration", summary: "Summary | ChoiceSummary | BareSummary"
) -> dict[str, Any]:
    from mergeplan.calibration.config_file import BareSummary
    from mergeplan.calibration.subset_report import ChoiceSummary
    from mergeplan.verdict.data import answer_data, verdict_data

    warnings = [*done.warnings, *summary.warnings]
    found = {
        **answer_data(done.verdict),
        "warnings": warnings,
        "config": summary.config,
        "next": summary.next_command,
        **dataclasses.asdict(dataclasses.replace(done, warnings=tuple(warnings), verdict=None)),
        "verdict": done.verdict and verdict_data(done.verdict),
    }
    if isinstance(summary, ChoiceSummary):
        from mergeplan.selection.data import selection_data

        return found | selection_data(summary.selections, [])
    if isinstance(summary, BareSummary):
        return found
    best = summary.recommendation.best
    curve = {"method": best.fit.series.method, "options": best.fit.series.options, "k": best.k}
    files = {"law": summary.law, "plot": summary.plot}
    return found | files | {"curve": curve, "scans": summary.scans}
