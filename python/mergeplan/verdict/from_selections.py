"""The verdict beside what `select` found for each method and base size."""

from dataclasses import replace
from pathlib import Path

from mergeplan.evaluation.resampling import of_known_items, resampling_beside
from mergeplan.selection.select import asked_of, chosen_of
from mergeplan.selection.selection import Selection, Selections, Wish
from mergeplan.system.blas import on_one_thread
from mergeplan.system.files import expanded
from mergeplan.verdict.answer import MeasureCommand, partly_scored, rows_of
from mergeplan.verdict.contenders import Bounds, Contender, Predictions
from mergeplan.verdict.decide import decide
from mergeplan.verdict.field import Question
from mergeplan.verdict.verdict import Verdict

EQUAL = "equal"


@on_one_thread
def verdict_from_selections(
    source: str | Path,
    selections: Selections,
    *,
    method: str | None = None,
    metric: str | None = None,
    weights: str = EQUAL,
    pool_file: str | Path | None = None,
) -> Verdict:
    """What to do by all that was measured, and by what `select` predicts from it.

    Args:
        source: What `select` was given, a CSV of measurements.
        selections: What it gave; their wish is what the verdict is asked for.
        method, metric: As `select` was given them.
        weights: Whether `simplex` or `free` weights of the first selection may be taken too.
        pool_file: For the command that measures more.

    Raises:
        InputError: The scores beside the measurements are of other texts.
    """
    path = expanded(source)
    rows = rows_of(path, method)
    if metric is not None:
        rows, _ = asked_of(rows, Wish(), metric)
    first, wish = selections[0], selections[0].wish
    question = Question(
        wish.domains or first.law.name, wish.max_loss, Bounds(wish.keep, wish.max_experts)
    )
    resampling = resampling_beside(path, rows)
    rows = of_known_items(rows, resampling)
    wanted = {"simplex": first.weighted, "free": first.free}.get(weights)
    some = [_predictions(selection) for selection in selections]
    if wanted is not None:
        some[0] = replace(some[0], wanted=(wanted,))
    return decide(
        rows,
        some,
        question,
        unfitted=selections.unfitted,
        resampling=resampling,
        seconds_each=resampling.seconds_each if resampling else None,
        command=MeasureCommand(path, pool_file, partly_scored(rows)),
    )


def better_weights(selection: Selection, verdict: Verdict) -> str | None:
    """A word on unequal weights that were not asked for and are predicted to be better."""
    found, chosen = selection.weighted, verdict.chosen
    sign = -1.0 if verdict.higher else 1.0
    if found is None or chosen is None or verdict.target is not None:
        return None
    if max(sign * found.low, sign * found.high) >= sign * chosen.value:
        return None
    return (
        f"unequal weights that sum to 1 are predicted to have {found.value:.4f} on this text, 90 %"
        f" interval {found.low:.4f} to {found.high:.4f}: `--weights simplex` takes them"
    )


def wanted_of(selection: Selection, weights: str) -> Contender | None:
    """The merge of the weights that were asked for; `None` where equal ones were.

    Raises:
        InputError: None of the kind are predicted; the message says why.
    """
    if weights == EQUAL:
        return None
    return _predictions(selection).contender(chosen_of(selection, weights))


def _predictions(selection: Selection) -> Predictions:
    law, sure = selection.law, selection.confidence
    laws = {**selection.laws, law.name: law}
    return Predictions(selection.table, selection.by_size, (), laws, law.r2, law.name, sure)
