"""Whether the means of a metric fall and rise with k by more than their error.

The law's means go one way, from one expert to all. A loss that turns back is warned of, and drawn
with a rise: it is exact on its text. Means of a metric also move by single items that flip, so that
what goes against the law is first asked whether it is more than that.
"""

import itertools
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mergeplan.law.series import Series
from mergeplan.law.spread import fit_spread, known_covariance

# Chance that of all pairs of k one differs by more than is taken for chance, either way. At two
# standard errors for each pair one merge of all experts with few items refused a sound curve.
_CHANCE = 0.025
# Where errors are not known, a law of means that turn back says nothing below this R².
_EXPLAINED = 0.1


@dataclass(frozen=True)
class Step:
    """How the mean differs between two k.

    Attributes:
        worse: By how much it is worse at the larger k; below 0 where it is better there.
        error: Standard error of that, paired where the means are over the same experts; `None`
            where how far items move it is not known.
        limit: Standard errors that chance may make of the largest of all pairs.
    """

    first: int
    last: int
    values: tuple[float, float]
    worse: float
    error: float | None
    limit: float

    @property
    def clear(self) -> bool:
        """Whether it is more than its error lets chance do."""
        return self.error is not None and abs(self.worse) > self.limit * self.error

    def text(self) -> str:
        """For people."""
        error = "" if self.error is None else f" (standard error {self.error:.4f})"
        one, other = self.values
        return f"{one:.4f} at k = {self.first}, {other:.4f} at k = {self.last}{error}"


def bend_of(series: Series) -> str | None:
    """Why no law is fitted to a metric: means that rise and fall by more than their error.

    `None` where one is fitted.
    """
    worse, better = clearest_steps(series)
    if worse is None or better is None or not (worse.clear and better.clear):
        return None
    return (
        f"{series.scale.name} becomes better and worse with k by more than its error:"
        f" {better.text()}; {worse.text()}"
    )


def alike(series: Series) -> bool:
    """Whether all merges that were measured have one value."""
    losses = {point.loss for point in series.points}
    return len(losses) == 1 and not any(point.spread for point in series.points)


def trendless(series: Series, r2: float) -> str | None:
    """Why nothing is to be said of how a mean changes with k; `None` where something is.

    Args:
        r2: Share of the variance of the means that the law explains.
    """
    if alike(series):
        return f"all merges score alike, {series.points[0].loss:.4f}"
    worse, better = clearest_steps(series)
    some = [step for step in (better, worse) if step is not None]
    if some and all(step.error is not None and not step.clear for step in some):
        return (
            "of all pairs of k none differs by more than its error makes: the most do"
            f" {some[0].text()}"
        )
    if worse and better and (worse.error is None or better.error is None) and r2 < _EXPLAINED:
        return (
            f"the law explains {max(r2, 0.0):.0%} of how the means differ: {better.text()};"
            f" {worse.text()}"
        )
    return None


def clearest_steps(series: Series) -> tuple[Step | None, Step | None]:
    """Of all pairs of k those whose mean becomes worse, and better, by most of their errors.

    Where errors are not known, by most. `None` where no pair does, and of losses.
    """
    if not series.scale.metric or len(series.points) < 3:
        return None, None
    steps = steps_of(series)
    worse = [step for step in steps if step.worse > 0]
    better = [step for step in steps if step.worse < 0]
    return max(worse, key=_size, default=None), max(better, key=_size, default=None)


def _size(step: Step) -> float:
    return abs(step.worse) / (step.error or 1.0)


def steps_of(series: Series) -> list[Step]:
    """How the mean differs between any two k, the smaller one first."""
    points, scale = series.points, series.scale
    sampling = known_covariance(series, fit_spread(points, series.pool_size))
    known = sampling is not None and series.loss_se > 0
    pairs = len(points) * (len(points) - 1) / 2
    limit = NormalDist().inv_cdf(1 - _CHANCE / pairs)
    found = []
    for i, j in itertools.combinations(range(len(points)), 2):
        one, other = points[i], points[j]
        error = None
        if known:
            assert sampling is not None
            # What merges have in common cancels, as far as the items' scores tell it.
            items = series.own_se**2 * (1 / one.n_subsets + 1 / other.n_subsets)
            paired = sampling[i, i] + sampling[j, j] - 2 * sampling[i, j]
            error = float(np.sqrt(max(paired, 0.0) + items))
        worse = scale.sign * (other.loss - one.loss)
        found.append(Step(one.k, other.k, (one.loss, other.loss), worse, error, limit))
    return found
