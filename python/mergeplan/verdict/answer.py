"""From a file to its verdict in one step."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergeplan.config.transfer import AUTO
from mergeplan.evaluation.item_scores import with_item_scores
from mergeplan.evaluation.measured import RUN, recorded_texts
from mergeplan.evaluation.resampling import of_known_items, resampling_beside
from mergeplan.law.costs import CostModel
from mergeplan.law.fit_result import FitResult
from mergeplan.law.loading import fits_of, is_law
from mergeplan.law.recommend import recommend, sharpen_of
from mergeplan.law.recommendation import Candidate, Goal, Recommendation
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.metrics import item_error, rows_about, target_among
from mergeplan.measurements.rows import Measurement
from mergeplan.pool.geometry.file import Gram
from mergeplan.selection.fitting import Fits, fit_each
from mergeplan.selection.geometry import geometry_beside, grams_beside
from mergeplan.selection.sizes import link_sizes
from mergeplan.selection.slopes import rows_with_slopes
from mergeplan.selection.table import tables_of
from mergeplan.system.blas import on_one_thread
from mergeplan.system.files import expanded
from mergeplan.system.users_code import allowing
from mergeplan.verdict.contenders import Bounds, Contender, Predictions, is_complete, predictions_of
from mergeplan.verdict.decide import decide
from mergeplan.verdict.field import Question
from mergeplan.verdict.from_law import verdict_from_law
from mergeplan.verdict.known import aim_of
from mergeplan.verdict.verdict import Verdict


@on_one_thread
def verdict_of(
    source: str | Path,
    target_loss: float | None = None,
    *,
    domain: str | None = None,
    metric: str | None = None,
    method: str | None = None,
    goal: Goal | None = None,
    costs: CostModel | None = None,
    pool_file: str | Path | None = None,
    recommendation: Recommendation | None = None,
) -> Verdict:
    """What to do, by all that was measured: the base, a single expert, a merge, or measure more.

    Args:
        source: A CSV of measurements, or a law file, of which the verdict is a number of experts.
        target_loss: In nats per token, or a value of the metric; short for
            `goal=Goal(target_loss=…)`. Without a goal, the lowest loss or best value.
        domain: Which domain decides; by default the macro mean.
        metric: What of a table decides; `None` for the losses, or for the only metric of a table
            without any. `perplexity` is made of losses where no row is of it.
        method: Only this label.
        pool_file: For the command that measures more.
        recommendation: What the curves say, where that is known already.

    Returns:
        The verdict; `fails` says whether nothing beats the base or reaches the target.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is at fault, or what counts was not measured.

    Example:
        >>> import mergeplan
        >>> found = mergeplan.verdict_of("pool/measurements.csv", method="task_arithmetic")
        >>> found.kind, found.chosen.merge.subset
        ('merge', ('cheader', 'html', 'js', 'json', 'mande', 'manfr'))
    """
    path = expanded(source)
    goal = goal or Goal(target_loss)
    costs = costs or CostModel()
    rows = () if is_law(path) else rows_of(path, method)
    wanted = domain
    if rows and (metric is not None or len({row.metric for row in rows}) == 1):
        rows = rows_about(rows, metric)
        wanted = target_among(rows, domain)
    if not any(row.subset for row in rows):
        if recommendation is None:
            fits = fits_of(path) if is_law(path) else _fit(path, domain, metric, method)
            recommendation = recommend(fits, goal=goal, costs=costs)
        return verdict_from_law(recommendation)
    question = Question(
        wanted,
        goal.target_loss,
        Bounds(budget=goal.budget, costs=costs),
        goal.confidence,
    )
    resampling = resampling_beside(path, rows)
    rows = of_known_items(rows, resampling)
    predicted = predictions(rows, aim_of(rows, wanted).name, grams_beside(path, rows))
    verdict = decide(
        rows,
        predicted.found,
        question,
        unfitted=predicted.unfitted,
        resampling=resampling,
        seconds_each=resampling.seconds_each if resampling else None,
        command=MeasureCommand(path, pool_file, partly_scored(rows)),
    )
    cheapest = None if recommendation is None else recommendation.cheapest
    if verdict.reached or cheapest is None:
        return verdict
    return replace(verdict, notes=(*verdict.notes, f"a mean is expected to: {cheapest.text()}"))


def _fit(path: Path, domain: str | None, metric: str | None, method: str | None) -> FitResult:
    from mergeplan.law.fit import fit

    return fit(path, domain=domain, metric=metric, method=method)


def rows_of(path: Path, method: str | None) -> tuple[Measurement, ...]:
    """The rows of one method and of the bases; of all methods where none is named."""
    rows = rows_with_slopes(path, with_item_scores(path, read_rows(path)[0]))
    return tuple(row for row in rows if method is None or row.k == 0 or row.method == method)


def predictions(
    rows: Sequence[Measurement],
    aim: str | None,
    grams: Sequence[Gram] = (),
    transfer: str = AUTO,
) -> Fits[Predictions]:
    """What the law of single subsets predicts of each method and base that it can be fitted to.

    Args:
        transfer: Whether a larger base leans on a smaller one.
    """
    linked = link_sizes(tables_of(rows), transfer)
    # Of a metric whose items may move it, what was measured is not all that there is to know.
    moves = any(not math.isnan(item_error(row)) for row in rows)
    tables = [table for table in linked if moves or not is_complete(table)]
    # Of several metrics none is the default: whoever asks names one.
    return fit_each(tables, lambda one: predictions_of(one, aim or one.default_target()), grams)


def curves_beside(recommendation: Recommendation, verdict: Verdict) -> Recommendation:
    """The same curves, those of the verdict's base and method first."""
    if verdict.chosen is None:
        return recommendation
    merge = verdict.chosen.merge

    def away(candidate: Candidate) -> tuple[bool, bool]:
        series = candidate.fit.series
        other = (series.method, series.options) != (merge.method, merge.options)
        return series.n_params != merge.n_params, bool(merge.k) and other

    ordered = tuple(sorted(recommendation.candidates, key=away))
    return replace(recommendation, candidates=ordered, sharpen=sharpen_of(ordered[0]))


@dataclass(frozen=True)
class MeasureCommand:
    """The `calibrate` command that measures some merges in the run that a table is of.

    Attributes:
        partly: Whether the run scores merges on a part of the text first.
    """

    table: Path
    pool_file: str | Path | None = None
    partly: bool = False

    def __call__(self, merges: Sequence[Contender]) -> str:
        if not also(merges):
            return ""
        run = self.table.parent
        folder = str(run) if (run / RUN).is_file() else "RUN_DIR"
        words = ["mergeplan", "calibrate", str(self.pool_file or "POOL.yml"), "-o", folder]
        words += [*self._question(), *_options_of(run), *also(merges), *allowing()]
        return shlex.join(words)

    def _question(self) -> list[str]:
        """What the run asks, told by what it has left: how experts lie is for the best subset."""
        if not geometry_beside(self.table):
            return []
        return ["--for", "select", *(["--tokens", "where-needed"] if self.partly else [])]


def partly_scored(rows: Sequence[Measurement]) -> bool:
    """Whether some rows are of merges that were scored on a part of the text."""
    return any(row.text_se is not None for row in rows)


def _options_of(run: Path) -> list[str]:
    """The options that a run was given and that decide what its losses are."""
    recorded = recorded_texts(run)
    if recorded is None:
        return []
    arithmetic = recorded.arithmetic
    length, stride = arithmetic.get("the windows") or (None, None)
    found = {
        "--max-tokens": arithmetic.get("`--max-tokens`"),
        "--max-length": length,
        "--stride": stride,
        "--seed": arithmetic.get("`--seed`") or None,
        "--half": "check" if arithmetic.get("`--half`") == "check" else None,
        "--dtype": arithmetic.get("`--dtype`") if arithmetic.get("`--dtype`") != "auto" else None,
    }
    words = [word for name, value in found.items() if value is not None for word in (name, value)]
    words += ["--lora-exact"] if arithmetic.get("`--lora-exact`") else []
    words += ["--scorer", "FILE.py"] if "`--scorer`" in arithmetic else []
    tasks = [name.split("`")[1] for name in arithmetic if name.startswith("task `")]
    return [*map(str, words), *(["--tasks", ",".join(tasks)] if tasks else [])]


def also(merges: Sequence[Contender]) -> list[str]:
    """The options that name some merges: those of equal shares, all of the first one's method."""
    equal = [one.merge for one in merges if one.merge.equal]
    if not equal:
        return []
    first = equal[0].method
    words = ["--method", first] if first else []
    for merge in equal:
        if merge.method == first:
            words += ["--also", "+".join(merge.subset)]
    return words
