"""A verdict as data for `--json`."""

from dataclasses import asdict
from typing import Any

from mergeplan.errors import UnreachableError
from mergeplan.measurements.columns import direction
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.verdict import Verdict


def answer_data(verdict: Verdict | None) -> dict[str, Any]:
    """What a script asks first: what to do, what that gives, and whether it is enough.

    Args:
        verdict: `None` where nothing was measured.
    """
    if verdict is None:
        return {"answer": None}
    chosen = verdict.chosen
    value = chosen.value if chosen and verdict.kind != "k" else verdict.expected
    over_base = (gain for gain in verdict.gains if gain.over == "the base")
    return {
        "answer": verdict.kind,
        "headline": verdict.headline(),
        "best": _contender(chosen),
        "k": chosen.merge.k if chosen and verdict.kind != "k" else verdict.k,
        "value": value,
        "loss": None if verdict.metric else value,
        "metric": verdict.metric or "loss_nats",
        "better": direction(verdict.higher),
        "gain_over_base": next(map(asdict, over_base), None),
        "target": verdict.target,
        "reached": verdict.reached,
        "exit_code": UnreachableError.exit_code if verdict.fails else 0,
        "failure": verdict.failure() if verdict.fails else None,
    }


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Everything that the words say, and the values by domain."""
    to_measure = verdict.to_measure
    return {
        "kind": verdict.kind,
        "aim": verdict.aim,
        "target": verdict.target,
        "reached": verdict.reached,
        "fails": verdict.fails,
        "headline": verdict.headline(),
        "chosen": _contender(verdict.chosen),
        "base": _contender(verdict.base),
        "expert": _contender(verdict.expert),
        "best_merge": _contender(verdict.best_merge),
        "gains": [asdict(gain) for gain in verdict.gains],
        "harms": [asdict(harm) for harm in verdict.harms],
        "measure": to_measure
        and {
            **asdict(to_measure),
            "merges": [_contender(one) for one in to_measure.merges],
            "over": _contender(to_measure.over),
        },
        "lambda_to_try": verdict.lambda_to_try,
        "k": verdict.k,
        "pool_size": verdict.pool_size,
        "expected": verdict.expected,
        "notes": verdict.notes,
    }


def _contender(one: Contender | None) -> dict[str, Any] | None:
    if one is None:
        return None
    merge = one.merge
    return {
        "name": merge.name(),
        "n_params": merge.n_params,
        "method": merge.method,
        "options": merge.options,
        "k": merge.k,
        "subset": merge.subset,
        "weights": dict(merge.weights),
        "value": one.value,
        "low": one.low,
        "high": one.high,
        "measured": one.measured,
        "on_this_text": one.on_this_text,
        "domains": dict(one.values),
    }
