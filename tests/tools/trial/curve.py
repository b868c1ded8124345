"""The curve on trial: intervals of the pool's mean, and the k that is said to be sure.

Only `fit`, `predict` and `solve` are asked, so that the judge runs on earlier states as well:
`PYTHONPATH=EARLIER/python python -m tests.tools.trial --only curve`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import comb

import numpy as np

from mergeplan.law.fit import fit
from mergeplan.pool.designs import choose_subsets
from tests.tools.trial.baselines import BASELINES, Interval, Means
from tests.tools.trial.pools import KnownPool, Subset, hard_pools, sweeps

CONFIDENCE = 0.9
# Shares of the improvement that make the targets.
TARGETS = (0.5, 0.8, 0.9)
_EXACT = 1e-9


@dataclass
class Score:
    """What one forecaster did on one kind of pool and design.

    Attributes:
        held: By place (`measured`, `within`, `beyond`): whether each interval held the truth.
        winkler: By place: width plus 20 times what it missed by, over the drop of the true curve.
        narrow: Intervals of no width where subsets were left out.
        asked, said, right: Targets; where some k was said to be sure; where it does reach it.
    """

    held: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    winkler: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    narrow: int = 0
    asked: int = 0
    said: int = 0
    right: int = 0
    held_k: list[bool] = field(default_factory=list)

    def judge(self, place: str, interval: Interval, truth: float, drop: float) -> None:
        low, high = interval
        missed = max(low - truth, truth - high, 0.0)
        self.held[place].append(missed <= _EXACT * drop)
        self.winkler[place].append((high - low + 2 / (1 - CONFIDENCE) * missed) / drop)


Scores = dict[tuple[str, str, str], Score]


def designs(pool: KnownPool, seed: int) -> Iterator[tuple[str, list[Subset]]]:
    """What is measured: all single experts, subsets of two and four, and all experts.

    One design stops at four, so that what follows is a forecast.
    """
    ks = [k for k in (2, 4) if k < pool.size and k in pool.means]
    ends = [*((name,) for name in pool.names), tuple(sorted(pool.names))]
    for name, design, count in (
        ("all", "all", 0),
        ("8", "uniform", 8),
        ("8 balanced", "balanced", 8),
        ("3", "uniform", 3),
    ):
        if design == "all" and pool.size > 12:
            continue
        subsets = [s for k in ks for s in choose_subsets(design, pool.names, k, count, seed=seed)]
        yield name, [*ends, *subsets]
        if name in ("all", "8") and pool.size > 4:
            yield f"{name}, to k = 4", [*ends[:-1], *subsets]


def on_trial(*, share: bool, seed: int, each: int) -> Scores:
    """Every pool by every design, by the planner and by each baseline."""
    scores: Scores = defaultdict(Score)
    for pool in sweeps():
        for number in range(1 if share else 10):
            _judge_pool(pool, seed + number, scores)
    sizes = (9,) if share else (3, 6, 9, 12, 18, 30, 64)
    for number, pool in enumerate(hard_pools(sizes, 1 if share else each, seed)):
        _judge_pool(pool, seed + number, scores)
    return scores


def _judge_pool(pool: KnownPool, seed: int, scores: Scores) -> None:
    for design, subsets in designs(pool, seed):
        _judge(pool, design, subsets, scores)


def _judge(pool: KnownPool, design: str, subsets: list[Subset], scores: Scores) -> None:
    law = fit(pool.measured(subsets), pool_size=pool.size, method="average").fits[0]
    losses: dict[int, list[float]] = defaultdict(list)
    for subset in subsets:
        losses[len(subset)].append(pool.loss(subset))
    data = _means(losses, pool.size)
    drop = max(pool.means.values()) - min(pool.means.values())
    largest = max(losses)
    for k, truth in pool.means.items():
        complete = len(losses.get(k, ())) == comb(pool.size, k)
        place = "measured" if k in losses else "within" if k < largest else "beyond"
        predicted = law.predict(k, CONFIDENCE)
        own = scores[pool.name, design, "planner"]
        own.judge("complete" if complete else place, (predicted.low, predicted.high), truth, drop)
        own.narrow += not complete and predicted.high <= predicted.low
        if not complete and len(losses) > 2:
            for name, baseline in BASELINES.items():
                scores[pool.name, design, name].judge(place, baseline(data, k), truth, drop)
    _judge_k(pool, law, scores[pool.name, design, "planner"])


def _judge_k(pool: KnownPool, law, score: Score) -> None:  # type: ignore[no-untyped-def]
    """Targets between the first and the lowest mean, where all true means are known."""
    if len(pool.means) < pool.size:
        return
    first, lowest = pool.means[1], min(pool.means.values())
    for share in TARGETS:
        target = first - share * (first - lowest)
        solution = law.solve(target, CONFIDENCE)
        score.asked += 1
        truth = _first(pool.means, target)
        # Between whole k a pool has no mean: only where it ends counts.
        low, high = (np.ceil(k - 1e-9) for k in (solution.low, solution.high))
        score.held_k.append(bool(low <= truth <= high))
        if solution.confident is not None:
            score.said += 1
            score.right += pool.means[solution.confident] <= target + _EXACT


def _first(means: dict[int, float], target: float) -> float:
    """The k whose true mean is the first to reach a target."""
    return next((k for k in sorted(means) if means[k] <= target + 1e-12), float("inf"))


def _means(losses: dict[int, list[float]], size: int) -> Means:
    """Means by k; their variance from the scatter, pooled by 1/k - 1/M where subsets are few."""
    freedom = total = 0.0
    for k, values in losses.items():
        if len(values) > 1 and k < size:
            freedom += len(values) - 1
            total += (len(values) - 1) * float(np.var(values, ddof=1)) / (1 / k - 1 / size)
    scale = total / max(freedom, 1)
    rows = []
    for k, values in sorted(losses.items()):
        left_out = 1 - len(values) / comb(size, k)
        spread = scale * max(1 / k - 1 / size, 0.0)
        rows.append((k, float(np.mean(values)), spread / len(values) * left_out))
    k, loss, variance = np.array(rows, np.float64).T
    return Means(k, loss, variance)


def report(scores: Scores) -> list[str]:
    """Lines for people; pools of one kind, of any size, together in front of each design."""
    lines = [
        "share of 90 % intervals that held, and mean interval score in % of the drop, at measured k"
        " (complete ones apart) | within | beyond",
    ]
    for (pool, design, who), score in scores.items():
        cells = []
        for place in ("measured", "within", "beyond"):
            if held := score.held.get(place):
                winkler = 100 * float(np.mean(score.winkler[place]))
                cells.append(f"{100 * np.mean(held):4.0f} % {winkler:6.2f}")
            else:
                cells.append(f"{'-':>13}")
        line = f"{pool:<28} {design:<16} {who:<22} {' | '.join(cells)}"
        if score.asked:
            right = f"{100 * score.right / score.said:.0f} %" if score.said else "-"
            line += (
                f" | sure {right} of {score.said}/{score.asked},"
                f" k held {100 * np.mean(score.held_k):.0f} %"
            )
        if complete := score.held.get("complete"):
            line += f", complete held {100 * np.mean(complete):.0f} %"
        if score.narrow:
            line += f", {score.narrow} OF NO WIDTH"
        lines.append(line)
    return lines


def data(scores: Scores) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "pool": pool,
            "design": design,
            "who": who,
            "held": {place: float(np.mean(v)) for place, v in score.held.items()},
            "n": {place: len(v) for place, v in score.held.items()},
            "winkler": {place: float(np.mean(v)) for place, v in score.winkler.items()},
            "narrow": int(score.narrow),
            "asked": score.asked,
            "said": score.said,
            "right": int(score.right),
            "held_k": float(np.mean(score.held_k)) if score.held_k else None,
        }
        for (pool, design, who), score in scores.items()
    ]
