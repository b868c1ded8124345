"""Decide: the smallest merge that reaches a target loss."""

import math
from dataclasses import dataclass

from mergeplan.fitting import Fit, FitResult, format_count, name_of
from mergeplan.measurements import Point

# Rounding of a solution that is a whole number up to float error.
_SLACK = 1e-9


@dataclass(frozen=True)
class Candidate:
    """What one method at one base size can do about the target.

    Attributes:
        k: Smallest number of experts whose expected loss is at or below the target, at most the
            pool's size; `None` where there is none.
        solution: The same before rounding up, where the law has one.
        predicted: Expected loss, in nats, at k, or at the whole pool where k is `None`.
        measured: What was measured at that k.
    """

    fit: Fit
    k: int | None
    solution: float | None
    predicted: float
    measured: Point | None
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """The candidates, the one to take first: smallest base, then fewest experts.

    Attributes:
        best: The candidate to take; where none reaches the target, the one that comes nearest.
    """

    target_loss: float
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def reached(self) -> bool:
        return self.best.k is not None


def recommend(result: FitResult, target_loss: float) -> Recommendation:
    """The smallest k, and with it the base and the method, for a target loss.

    A poor or unreachable target is a result with reasons, not an exception.

    Args:
        target_loss: In nats per token.
    """
    candidates = [_candidate(fit, target_loss) for fit in result.fits]

    def order(candidate: Candidate) -> tuple[bool, float, float, float]:
        n_params = candidate.fit.series.n_params or 0.0
        if candidate.k is None:
            return True, candidate.predicted, n_params, 0.0
        return False, n_params, candidate.k, candidate.predicted

    return Recommendation(target_loss, tuple(sorted(candidates, key=order)))


def _candidate(fit: Fit, target: float) -> Candidate:
    law, series = fit.law, fit.series
    pool = series.pool_size
    at_one, at_all = law.predict(1), law.predict(pool)
    solution = law.solve(target)
    k: int | None = None
    if at_one <= target:
        k = 1
    elif solution is not None:
        whole = math.ceil(solution - _SLACK * max(1.0, abs(solution)))
        k = whole if whole <= pool else None

    reasons = []
    if k is not None:
        reasons.append(f"the expected loss at k = {k} is {law.predict(k):.4f}")
        if solution is not None and k > 1:
            reasons.append(f"it crosses the target at k = {solution:.2f}")
        if k < pool:
            gain = law.predict(k) - law.predict(k + 1)
            reasons.append(f"one more expert would take off another {gain:.4f}")
    elif target <= law.floor:
        reasons.append(f"the target is not above the floor of any merge, {law.floor:.4f}")
    else:
        needed = "more experts than any pool has" if solution is None else f"k = {solution:.1f}"
        reasons.append(f"the target needs {needed}; the pool has {pool}")
    if k is None:
        reasons.append(f"the best to be had is {at_all:.4f}, with all {pool} experts")

    at = k if k is not None else pool
    measured = next((point for point in series.points if point.k == at), None)
    return Candidate(
        fit=fit,
        k=k,
        solution=solution,
        predicted=law.predict(at),
        measured=measured,
        reasons=tuple(reasons),
        warnings=(*fit.warnings, *_warnings(fit, target, k, measured)),
    )


def _warnings(fit: Fit, target: float, k: int | None, measured: Point | None) -> list[str]:
    series = fit.series
    found = []
    if k is not None and measured is not None and measured.loss > target:
        found.append(
            f"the measured mean at k = {k} is {measured.loss:.4f}, above the target: the curve"
            " reaches it, this measurement does not"
        )
    largest = series.points[-1].k
    at = k if k is not None else series.pool_size
    if at > largest:
        found.append(f"k = {at} is beyond the largest measured k, {largest}: an extrapolation")
    if series.base_loss is not None and series.base_loss <= fit.law.predict(at):
        found.append(_base_wins(fit, series.base_loss))
    if k is not None and series.best_single is not None:
        name, loss = series.best_single
        if loss <= fit.law.predict(k):
            found.append(f"the single expert `{name}` alone has {loss:.4f}, no more than the merge")
    return found


def _base_wins(fit: Fit, base_loss: float) -> str:
    pool = fit.series.pool_size
    said = f"the base itself has {base_loss:.4f}, no more than the merge"
    if base_loss <= fit.law.predict(pool):
        return f"{said}: at these options merging does not pay; try a smaller lambda"
    beats = next(k for k in range(1, pool + 1) if fit.law.predict(k) < base_loss)
    return f"{said}; merges of k = {beats} and more beat it"


def describe(recommendation: Recommendation) -> str:
    """The recommendation in words, for people."""
    best = recommendation.best
    series = best.fit.series
    target = f"{recommendation.target_loss:g} nats on `{series.domain or 'the text'}`"
    if best.k is not None:
        size = "" if series.n_params is None else f" of {format_count(series.n_params)} parameters"
        head = f"for a loss of {target}, merge {best.k} of {series.pool_size} experts{size}"
        head += f" by {series.method}" if series.method else ""
    else:
        head = f"no merge reaches a loss of {target}"
    law = best.fit.law
    lines = [head, *(f"  {reason}" for reason in best.reasons), ""]
    curve = f"floor {law.floor:.4f}, tail {law.tail:.4f}, offset {law.offset:.4g}"
    lines.append(f"{name_of(series)}: {curve}")
    lines.append(f"  R² {best.fit.r2:.5f} in-sample, from k = {_ks(best.fit)}")
    if series.base_loss is not None:
        lines.append(f"  base (k = 0): {series.base_loss:.4f}")
    if series.best_single is not None:
        name, loss = series.best_single
        lines.append(f"  best single expert: `{name}`, {loss:.4f}")
    if len(recommendation.candidates) > 1:
        lines += ["", "k      expected  method and size"]
        for candidate in recommendation.candidates:
            k = "-" if candidate.k is None else str(candidate.k)
            lines.append(f"{k:6} {candidate.predicted:.4f}    {name_of(candidate.fit.series)}")
    return "\n".join(lines)


def _ks(fit: Fit) -> str:
    return ", ".join(str(point.k) for point in fit.series.points)
