"""The chosen subset on trial: its value and interval, and whether it is the best as said.

Only `tables_of` and `select_from` are asked, so that the judge runs on earlier states as well:
`PYTHONPATH=EARLIER/python python -m tests.tools.trial --only subsets`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO
from mergeplan.selection.active import first_subsets
from mergeplan.selection.select import select_from
from mergeplan.selection.selection import Wish
from mergeplan.selection.table import tables_of
from tests.support.settings import DATA, DEMO_POOL
from tests.tools.trial.pools import ENUMERATED, KnownPool, Subset, hard_pools

Array = NDArray[np.float64]

# Where 90 % of a normal variable lie, and what an interval score adds for each unit of a miss.
_NINE_IN_TEN, _MISS = 1.645, 20.0
SURE = 0.9
_EQUAL = 1e-9


@dataclass
class Score:
    """What one chooser did on one kind of pool and number of merges; losses in nats.

    Attributes:
        bias: Said of the chosen subset less its loss; `measured` where that was measured.
        regret: Loss of the chosen subset less that of the best of all.
        sure: Said to be the best at 90 %; `right` where it was.
    """

    bias: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    winkler: list[float] = field(default_factory=list)
    regret: list[float] = field(default_factory=list)
    measured: list[bool] = field(default_factory=list)
    sure: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def judge(self, value: float, low: float, high: float, loss: float, measured: bool) -> None:
        missed = max(low - loss, loss - high, 0.0)
        self.bias.append(value - loss)
        self.held.append(missed <= _EQUAL)
        self.winkler.append(high - low + _MISS * missed)
        self.measured.append(measured)


Scores = dict[tuple[str, int, str], Score]


def on_trial(*, share: bool, seed: int, each: int) -> Scores:
    """All choosers on all pools, with few merges measured."""
    scores: Scores = defaultdict(Score)
    designs = 2 if share else 2 * each
    for pool in sweeps():
        counts = (30,) if share else (22, 30, 40, 60)
        for count in counts:
            for number in range(designs):
                _judge(pool, count, seed + number, scores)
    sizes, pools = ((5, 8), 1) if share else ((5, 8, 12, 18), max(each // 3, 1))
    kinds = ("clusters", "harmful") if share else ("",)
    for number, pool in enumerate(hard_pools(sizes, pools, seed)):
        if any(kind in pool.name for kind in kinds):
            _judge(pool, {5: 14, 8: 30, 12: 50, 18: 80}[pool.size], seed + number, scores)
    return dict(scores)


def sweeps() -> Iterator[KnownPool]:
    """Pools of which every subset was measured."""
    for name in ("select_80k.csv", "select_270k.csv", "select_850k.csv", "real_lm_pool.csv"):
        path = DATA / name
        if path.exists():
            yield from _swept(name.split(".")[0], str(path))
    for pool in _swept("demo", str(DEMO_POOL / "measurements.csv")):
        if "task" in pool.name:
            yield pool


def _swept(name: str, path: str) -> Iterator[KnownPool]:
    rows = [row for row in read_rows(path)[0] if row.k and row.domain == MACRO]
    for method in sorted({row.method for row in rows}):
        losses = {row.subset: row.loss_nats for row in rows if row.method == method}
        names = max(losses, key=len)
        yield KnownPool(f"{name}, {method}", names, {}, losses)


def _judge(pool: KnownPool, count: int, seed: int, scores: Scores) -> None:
    subsets = first_subsets(pool.names, count, seed=seed)
    found = select_from(tables_of(pool.measured(subsets).rows)[0], Wish())
    best = found.best
    assert best is not None
    assert found.confidence is not None
    lowest = min(pool.losses.values()) if pool.size <= ENUMERATED else -inf
    own = scores[pool.name, count, "select"]
    own.judge(best.value, best.low, best.high, pool.loss(best.subset), best.measured)
    chance = found.confidence.chance
    own.sure.append(chance is not None and chance >= SURE)
    _judge_choice(own, pool.loss(best.subset), lowest)
    if pool.size > ENUMERATED:
        return
    chosen, value, half = _gaussian_process(pool, subsets)
    other = scores[pool.name, count, "Gaussian process"]
    loss = pool.loss(chosen)
    other.judge(value, value - half, value + half, loss, chosen in subsets)
    _judge_choice(other, loss, lowest)
    measured = min(map(pool.loss, subsets))
    last = scores[pool.name, count, "best measured"]
    last.judge(measured, measured, measured, measured, True)
    _judge_choice(last, measured, lowest)


def _judge_choice(score: Score, loss: float, lowest: float) -> None:
    if np.isfinite(lowest):
        score.regret.append(loss - lowest)
        score.right.append(loss <= lowest + _EQUAL)


def _gaussian_process(pool: KnownPool, measured: list[Subset]) -> tuple[Subset, float, float]:
    """The lowest by a process on the weights with a squared exponential kernel, and its interval.

    Length and noise are the likeliest of a grid (Rasmussen and Williams, 2006, chapter 5).
    """
    every = list(pool.losses)
    points = _weights(pool, every)
    at = np.array([every.index(subset) for subset in measured])
    y = np.array([pool.loss(subset) for subset in measured])
    squares = ((points[:, None] - points[at][None]) ** 2).sum(2)  # (n, n_measured)
    best: tuple[float, Array, Array] | None = None
    for length in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        for noise in (1e-6, 1e-4, 1e-2):
            kernel = np.exp(-squares / (2 * length**2))
            own = kernel[at] + noise * np.eye(len(at))
            inverse = np.linalg.inv(own)
            mean = inverse.sum(1) @ y / inverse.sum()
            duals = inverse @ (y - mean)
            variance = (y - mean) @ duals / len(y)
            cost = len(y) * np.log(variance) + np.linalg.slogdet(own)[1]
            if best is None or cost < best[0]:
                spread = 1 + noise - np.einsum("ij,jk,ik->i", kernel, inverse, kernel)
                best = (cost, mean + kernel @ duals, np.sqrt(variance * np.maximum(spread, 0)))
    assert best is not None
    _, values, deviations = best
    values[at], deviations[at] = y, 0.0
    i = int(np.argmin(values))
    return every[i], float(values[i]), _NINE_IN_TEN * float(deviations[i])


def _weights(pool: KnownPool, subsets: list[Subset]) -> Array:
    return np.array([[(name in s) / len(s) for name in pool.names] for s in subsets])


def report(scores: Scores) -> list[str]:
    """Lines for people; losses in thousandths of a nat."""
    lines = [
        "the chosen subset: bias, share of 90 % intervals that held, interval score (all | those"
        " that were not measured); regret; said to be sure of being the best, and right",
    ]
    for (pool, count, who), score in scores.items():
        open_ = ~np.array(score.measured)
        cells = [_cell(score, np.ones_like(open_)), _cell(score, open_)]
        line = f"{pool:<30} {count:3} {who:<17} {' | '.join(cells)}"
        if score.regret:
            line += f" | regret {1e3 * np.mean(score.regret):5.2f}"
        if score.sure and score.right:
            sure = np.array(score.sure)
            right = f", right {np.mean(np.array(score.right)[sure]):.0%}" if sure.any() else ""
            line += f" | sure {sure.sum()} of {len(sure)}{right}"
        lines.append(line)
    return lines


def _cell(score: Score, which: NDArray[np.bool_]) -> str:
    if not which.any():
        return f"{'-':>26}"
    bias, held, winkler = (
        float(np.mean(np.array(values)[which]))
        for values in (score.bias, score.held, score.winkler)
    )
    return f"{1e3 * bias:+7.2f} {held:5.0%} {1e3 * winkler:7.2f} n {which.sum():2}"


def data(scores: Scores) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "pool": pool,
            "merges": count,
            "who": who,
            "bias": float(np.mean(score.bias)),
            "held": float(np.mean(score.held)),
            "winkler": float(np.mean(score.winkler)),
            "measured": float(np.mean(score.measured)),
            "regret": float(np.mean(score.regret)) if score.regret else None,
            "sure": sum(score.sure),
            "right": sum(r for r, s in zip(score.right, score.sure, strict=False) if s),
            "n": len(score.bias),
        }
        for (pool, count, who), score in scores.items()
    ]
