"""Does the loss speak for a score? Merges that were measured by both, held beside each other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.measurements.metrics import PERPLEXITY
from mergeplan.measurements.rows import MACRO, target_name
from mergeplan.selection.table import Table
from mergeplan.selection.target import Target
from mergeplan.subset_law.spread import NINE_IN_TEN

Array = NDArray[np.float64]

# Merges with both that a rank correlation is told from.
_FEWEST = 5
# Of a score's range: what differs by less is the same.
_DIGITS = 4


@dataclass(frozen=True)
class ScoreLink:
    """How the loss orders merges that a score orders too; the base is none of them.

    Attributes:
        loss, score: Names of the targets.
        main: Whether the score is all there is of its metric: one task, or their mean.
        n: Merges that have both.
        rank: Spearman's rank correlation; 1 where a lower loss always goes with a better score.
        low, high: Its 90 % interval, as if other merges had been measured.
        noise: Share of the score's variance over merges that its items' errors alone would make; at
            most that, likewise. `None` where no errors are known.
        by_loss, by_score: Experts of the merge that each would choose.
        cost: What choosing by loss loses in score; at most that, since the best of many scores
            is lucky.
        cost_error: Of that difference on other items; at most that, where no scores of single items
            tell what merges have in common. `None` where no errors are known.
    """

    loss: str
    score: str
    main: bool
    n: int
    rank: float
    low: float
    high: float
    noise: float | None
    by_loss: tuple[str, ...]
    by_score: tuple[str, ...]
    cost: float
    cost_error: float | None

    def summary(self) -> str:
        """Two lines."""
        said = f"rank correlation {self.rank:+.2f} ({self.low:+.2f} to {self.high:+.2f})"
        lines = [f"{self.loss} and {self.score} of {self.n} merges: {said}"]
        if self.by_loss == self.by_score:
            lines.append(f"  both choose {'+'.join(self.by_loss)}")
        else:
            around = NINE_IN_TEN * (self.cost_error or 0.0)
            error = "" if self.cost_error is None else f" (90 % ± {around:.4f} at most)"
            lines.append(
                f"  the loss chooses {'+'.join(self.by_loss)}, the score {'+'.join(self.by_score)}:"
                f" the first costs at most {self.cost:.4f}{error} of {self.score}"
            )
        return "\n".join(lines)


def score_links(table: Table) -> tuple[ScoreLink, ...]:
    """The link of the macro loss, or the only one, with each score.

    Args:
        table: Of one method and base size.

    Returns:
        The main ones first. Nothing where fewer than five merges have both, or either is the same
        for all.
    """
    losses = [one for one in table.targets.values() if not one.metric]
    loss = next((one for one in losses if one.name == MACRO or len(losses) == 1), None)
    if loss is None:
        return ()
    by_metric: dict[tuple[str, bool], list[Target]] = {}
    for one in table.targets.values():
        # A perplexity is the loss in other words.
        if one.metric not in ("", PERPLEXITY):
            by_metric.setdefault((one.metric, one.higher), []).append(one)
    found = []
    for tasks in by_metric.values():
        whole = _mean(tasks) if len(tasks) > 1 else tasks[0]
        found.append(_link(table, loss, whole, main=True))
        found += [_link(table, loss, task, main=False) for task in tasks if task is not whole]
    links = [link for link in found if link is not None]
    return tuple(sorted(links, key=lambda link: not link.main))


def _mean(tasks: list[Target]) -> Target:
    """The macro mean, where it was measured; else that of the tasks, whose items differ."""
    first = tasks[0]
    for task in tasks:
        if task.name == target_name(first.metric, MACRO):
            return task
    values = np.mean([task.values for task in tasks], axis=0)
    errors = None
    known = [one for one in map(_errors, tasks) if one is not None]
    if len(known) == len(tasks):
        errors = np.sqrt(np.sum(np.square(known), axis=0)) / len(tasks)
    name = f"{first.metric}, mean of {len(tasks)} tasks"
    return Target(name, values, first.higher, first.metric, errors)


def _errors(score: Target) -> Array | None:
    """What of each value's error is the merge's own, where its items' scores tell; else all."""
    return score.errors if score.own is None else score.own


def _link(table: Table, loss: Target, score: Target, *, main: bool) -> ScoreLink | None:
    from scipy.stats import spearmanr

    both = np.isfinite(loss.values) & np.isfinite(score.values) & (table.weights.sum(1) > 0)
    n = int(both.sum())
    # Turned so that of both less is better.
    ours, theirs = loss.values[both], (-1.0 if score.higher else 1.0) * score.values[both]
    if n < _FEWEST or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    # Shares of few items are often the same, and their means only but for the last digits.
    rank = float(spearmanr(ours, np.round(theirs / np.ptp(theirs), _DIGITS)).statistic)
    # Bonett and Wright, Psychometrika 65 (2000): Fisher's z of a rank correlation.
    around = NINE_IN_TEN * np.sqrt((1 + rank**2 / 2) / (n - 3))
    z = np.arctanh(np.clip(rank, -0.999999, 0.999999))
    places = np.flatnonzero(both)
    first, second = int(np.argmin(ours)), int(np.argmin(theirs))
    noise = cost_error = None
    known = _errors(score)
    if known is not None and np.isfinite(known[both]).all():
        errors = known[both]
        noise = float(np.mean(errors**2) / np.var(theirs, ddof=1))
        cost_error = float(np.hypot(errors[first], errors[second]))
    return ScoreLink(
        loss=loss.name,
        score=score.name,
        main=main,
        n=n,
        rank=rank,
        low=float(np.tanh(z - around)),
        high=float(np.tanh(z + around)),
        noise=noise,
        by_loss=_experts(table, places[first]),
        by_score=_experts(table, places[second]),
        cost=float(theirs[first] - theirs[second]),
        cost_error=cost_error,
    )


def _experts(table: Table, place: int) -> tuple[str, ...]:
    weights = table.weights[place]
    return tuple(n for n, weight in zip(table.experts, weights, strict=True) if weight > 0)
