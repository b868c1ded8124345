"""Weigh everything that was measured, and everything that is predicted, against the base."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mergeplan.errors import InputError
from mergeplan.evaluation.resampling import Resampling
from mergeplan.law.scale import scale_of
from mergeplan.measurements.rows import MACRO, Measurement, target_name
from mergeplan.selection.problem import Constraint
from mergeplan.verdict.contenders import (
    Contender,
    Predictions,
    measured_contenders,
    on_items,
    predicted_contenders,
    with_domains,
)
from mergeplan.verdict.field import Field, Question
from mergeplan.verdict.harms import gains_of, harms_of
from mergeplan.verdict.known import Aim, aim_of, known_merges
from mergeplan.verdict.lambdas import lambda_to_try
from mergeplan.verdict.notes import (
    on_another_size,
    on_base_and_texts,
    on_experts,
    on_lacking,
    on_nothing_compared,
    on_open,
    on_outliers,
    on_predictions,
    on_ties,
    within,
)
from mergeplan.verdict.verdict import Kind, Verdict


def decide(
    rows: Sequence[Measurement],
    predictions: Sequence[Predictions] = (),
    question: Question | None = None,
    *,
    unfitted: Sequence[str] = (),
    resampling: Resampling | None = None,
    seconds_each: float | None = None,
    command: Callable[[Sequence[Contender]], str] = lambda _: "",
) -> Verdict:
    """The verdict on some measurements that name their experts.

    Without a target the lowest loss (or best metric) is taken: of all bases, of all measured merges
    of every size, and of those that the law of single subsets predicts. With one, the cheapest that
    reaches it and beats its base. A prediction is taken where it is better than what is known with
    the confidence that is asked for; else it is to be measured, and the best that is known stands
    meanwhile. Of unequal weights, which no calibration measures, the expected value decides.

    Args:
        predictions: Of the law of single subsets, for each method and base; none where it cannot
            predict.
        unfitted: A word on each base size beside a smaller one that it could not be fitted to.
        resampling: Of the documents' losses, for what holds on texts of this kind.
        seconds_each: Of one merge with its evaluation.
        command: Says how some merges are measured.

    Raises:
        InputError: What counts was not measured.
    """
    question = question or Question()
    aim = aim_of(rows, question.aim)
    if question.target is not None:
        _check(question.target, "target", rows, aim)
    every = known_merges(rows)
    known = on_items(measured_contenders(every, aim), predictions, aim)
    predicted = [one for one in predicted_contenders(predictions) if question.bounds.allow(one)]
    # Predictions were chosen within the bounds on values.
    allowed = [one for one in known if question.bounds.allow(one)]
    for bound in question.bounds.keep:
        of = aim_of(rows, bound.name)
        _check(bound.limit, f"bound on `{of.name}`", rows, of)
        # By expected values, as those were: of losses on this text they are the measured ones.
        values = on_items(measured_contenders(every, of), predictions, of, bound.name)
        keeping = {one.key for one in values if _keeps(bound, one.value)}
        allowed = [one for one in allowed if one.key in keeping]
    if not known and not predicted:
        raise InputError(f"no merge was measured on all that `{aim.name}` is of")
    if not allowed and not predicted:
        return replace(_nothing(aim, question), notes=tuple(unfitted))
    field_ = Field(aim, question, allowed, known, predictions, seconds_each, command)
    best, measured = field_.pick(predicted), field_.pick()
    kind, chosen, proposal = field_.answer(best, measured, predicted)
    if not chosen.measured:
        chosen = with_domains(chosen, predictions)
    reached = question.target is None or field_.reaches(chosen)
    base = field_.base_of(chosen)
    n_params = chosen.merge.n_params
    singles = field_.experts_of(chosen)
    expert = field_.best(singles)
    higher = {row.target: row.higher for row in rows if _is_part(row, aim)}
    others = [one for one in (base, expert) if one is not None]
    return Verdict(
        kind=kind,
        aim=aim.name,
        higher=aim.higher,
        metric=aim.metric,
        target=question.target,
        chosen=chosen,
        base=base,
        expert=expert,
        best_merge=field_.best(
            one for one in (*field_.allowed, *predicted) if one.merge.k and not one.merge.is_expert
        ),
        reached=reached,
        gains=gains_of(chosen, others, aim, resampling) if chosen.merge.k else (),
        harms=harms_of(chosen, base, singles, higher, resampling) if chosen.merge.k else (),
        to_measure=proposal,
        lambda_to_try=_lambda(kind, known, chosen, base, aim),
        within=within(question.bounds) if len(field_.allowed) < len(known) else "",
        few_documents=resampling is not None and not resampling.enough(aim.shares),
        notes=(
            *on_base_and_texts(chosen, base, base in allowed, aim, resampling, known),
            *on_nothing_compared(
                alone=field_.is_alone(chosen), no_merges=bool(field_.first_merges(chosen))
            ),
            *on_ties(known),
            *on_another_size(kind, field_.paying_elsewhere(chosen)),
            *on_outliers(predictions),
            *on_lacking(every, aim),
            *on_experts(singles, chosen, _n_experts(rows, n_params), _partly_alone(rows, n_params)),
            *on_open(field_.open_beside(chosen) if chosen.measured else None),
            *on_predictions(chosen, predictions),
            *unfitted,
        ),
    )


def _check(value: float, what: str, rows: Iterable[Measurement], aim: Aim) -> None:
    """Refuse a target or bound that no value can be."""
    own = [row for row in rows if row.target in aim.shares]
    if len({row.metric for row in own}) == 1:  # of several together no range is known
        scale_of(own).check(value, what)


def _n_experts(rows: Iterable[Measurement], n_params: float | None) -> int:
    """Of a base: as many as rows say, or name."""
    own = [row for row in rows if row.n_params == n_params]
    names = {name for row in own for name in row.subset}
    return max([len(names), *(row.pool_size for row in own if row.pool_size)])


def _partly_alone(rows: Iterable[Measurement], n_params: float | None) -> set[str]:
    """Experts of a base that were scored alone on a part of the text."""
    own = (row for row in rows if row.n_params == n_params and row.text_se is not None)
    return {row.subset[0] for row in own if len(row.subset) == 1}


def _is_part(row: Measurement, aim: Aim) -> bool:
    """Whether a row is of a domain, and not of a mean of them; of metrics, of one that counts."""
    if row.metric != aim.metric:
        return False
    if aim.metric and aim.name != target_name(aim.metric, MACRO):
        return row.target in aim.shares
    return row.domain != MACRO


def _keeps(bound: Constraint, value: float) -> bool:
    return value <= bound.limit if bound.below else value >= bound.limit


def _nothing(aim: Aim, question: Question) -> Verdict:
    """The verdict where the bounds leave out all that is known."""
    return Verdict(
        kind="nothing",
        aim=aim.name,
        higher=aim.higher,
        metric=aim.metric,
        target=question.target,
        chosen=None,
        base=None,
        expert=None,
        best_merge=None,
        reached=False,
        within=within(question.bounds),
    )


def _lambda(
    kind: Kind, known: Sequence[Contender], chosen: Contender, base: Contender | None, aim: Aim
) -> float | None:
    if kind not in ("base", "expert"):
        return None
    own = [one for one in known if one.merge.n_params == chosen.merge.n_params]
    if len({one.on_this_text for one in own}) == 1:
        return None  # all alike, and so is what lies between
    return lambda_to_try(own, None if base is None else base.value, aim.sign)
