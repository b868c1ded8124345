"""What a calibration says at its end: fit, picture, recommendation, and the next command."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mergeplan.calibration.config_file import next_of, place_config
from mergeplan.calibration.run_folder import LAW, MEASUREMENTS, PICTURE, RunFolder
from mergeplan.law.costs import CostModel
from mergeplan.law.diagnose import all_signs
from mergeplan.law.file import law_text
from mergeplan.law.fit import fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.recommend import recommend
from mergeplan.law.recommendation import Goal, Recommendation
from mergeplan.law.scans import Scan, scans_of
from mergeplan.law.series import name_of
from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import Measurement
from mergeplan.pool.pool import Pool
from mergeplan.verdict.answer import curves_beside
from mergeplan.verdict.verdict import Verdict


@dataclass(frozen=True)
class Summary:
    """Files and words.

    Attributes:
        plot: `None` where matplotlib is not installed.
        config: The verdict's merge; `None` where merging does not pay.
        scans: For each method whose lambda was varied, a line on what it changed.
    """

    law: Path
    plot: Path | None
    config: Path | None
    recommendation: Recommendation
    scans: tuple[str, ...]
    warnings: tuple[str, ...]
    next_command: str
    text: str = field(repr=False)


def summarize(
    run: RunFolder, pool: Pool, goal: Goal, verdict: Verdict | None, *, anyway: bool = False
) -> Summary:
    """Fit a run's table, and write `law.json`, `law.png` and the verdict's `merge.yml` beside it.

    Args:
        anyway: Write the best merge's YAML also where merging does not pay.

    Raises:
        InputError: There are too few measurements to fit anything.
    """
    table = run.at(MEASUREMENTS)
    metric = run.identity.metric or None
    # A run that has measured all it was asked for ends with what there is to say.
    result = fit(table, metric=metric, anyway=True)
    law = run.place(LAW, law_text(result))
    rows = load_measurements(table, metric).rows
    plot = _plot(result, rows, run, goal)
    recommendation = recommend(result, goal=goal, costs=CostModel())
    config = place_config(run, pool, verdict, anyway=anyway)
    scans = tuple(map(_scan_text, scans_of(rows)))
    named = f" --metric {metric}" if metric else ""
    next_command = next_of(verdict, config, f"mergeplan suggest {table} --target-loss T{named}")
    beside = recommendation if verdict is None else curves_beside(recommendation, verdict)
    texts = verdict is None or not verdict.few_documents
    means = beside.summary(warnings=False, other_texts=texts)
    lines = [result.summary(warnings=False), "", means, *scans, ""]
    files = [table, law, *filter(None, (plot, config))]
    lines += [f"files: {', '.join(map(str, files))}", f"next: {next_command}"]
    warnings = [f"{name_of(one.series)}: {text}" for one in result.fits for text in one.warnings]
    return Summary(
        law=law,
        plot=plot,
        config=config,
        recommendation=recommendation,
        scans=scans,
        warnings=(*result.skipped, *warnings, *beside.best.warnings, *all_signs(result)),
        next_command=next_command,
        text="\n".join(lines),
    )


def _plot(
    result: FitResult, rows: Sequence[Measurement], run: RunFolder, goal: Goal
) -> Path | None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return None
    from mergeplan.law.pictures import draw_law

    draw_law(result, Path(PICTURE), goal.target_loss, partial(run.place, PICTURE), rows)
    return run.at(PICTURE)


def _scan_text(scan: Scan) -> str:
    """The losses, and which is lowest."""
    values = ", ".join(f"{s:g}: {loss:.4f}" for s, loss in scan.losses.items())
    word = "highest" if scan.higher else "lowest"
    return f"{scan.method}, one subset of {scan.k}, by lambda: {values}; {word} at {scan.best:g}"
