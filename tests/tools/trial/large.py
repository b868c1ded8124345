"""Pools of 18 experts and more on trial: what M, 1.5 M and 2 M merges buy.

Each pool is judged with and without the experts' Gram matrix, by merges of `first_subsets` and by
those that `calibrate --budget` would measure. `PYTHONPATH=EARLIER/python` judges earlier states.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.limits import Budget
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.errors import InputError
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.pool.pool import Pool, PoolSize
from mergeplan.selection.active import first_subsets
from mergeplan.selection.choices import best_by_size
from mergeplan.selection.draws import settle
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.problem import Problem
from mergeplan.selection.table import tables_of
from tests.tools.byte_pools.measure import random_subsets
from tests.tools.trial.pools import KINDS, KnownPool, SimulatedLoss, Subset, simulated
from tests.tools.trial.trained import SIZES, trained_pool

Array = NDArray[np.float64]

# Merges beside the base, as shares of M; one pool is judged at 60 merges too.
_SHARES = (1.0, 1.5, 2.0)
_SIXTY = 18
_SEEDS, _RANDOM = 3, 240
# Of pools with noise or an upturn the lowest of all merges is not to be found by search.
_KINDS = ("plain", "clusters", "harmful", "duplicates", "correlated", "heavy tails")
_SIMULATED = {18: _KINDS, 30: _KINDS, 64: ("clusters", "harmful")}
_SHARE = {30: ("clusters",)}
_NINE_IN_TEN, _EQUAL = 1.645, 1e-9


@dataclass
class Score:
    """What was said of one kind of pool, from one design; losses in nats.

    Attributes:
        refused: Tables of which nothing could be said.
        regret: Loss of the chosen subset less that of the best known.
        held: Whether the chosen subset's loss was in its 90 % interval.
        covered: Share of other subsets, drawn at random, whose loss was in theirs.
        r2: Share of those subsets' variance that was explained.
    """

    refused: int = 0
    regret: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)
    r2: list[float] = field(default_factory=list)


Key = tuple[str, int, str, str]  # pool, merges, design, geometry
Scores = dict[Key, Score]


def on_trial(*, share: bool, seed: int, each: int) -> Scores:
    """All pools by all designs; a share is one simulated pool, from M and 2 M merges."""
    scores: Scores = defaultdict(Score)
    if not share:
        for size in SIZES:
            pool, gram, rule = trained_pool(size)
            judge_pool(pool, gram, _lowest_known(pool), range(seed, seed + _SEEDS), scores)
            if rule.asked:
                print(
                    f"{pool.name}: {len(rule.asked)} merges were not measured; what stands in for"
                    f" them is off by {rule.error:.5f} nats elsewhere"
                )
    for size, kinds in (_SHARE if share else _SIMULATED).items():
        for kind in kinds:
            for number in range(1 if share else max(each // 12, 1)):
                pool, gram, rule = _simulated(kind, size, seed + number)
                counts = (30, 60) if share else ()
                judge_pool(pool, gram, _lowest(rule), [seed + number], scores, counts)
    return dict(scores)


def judge_pool(
    pool: KnownPool,
    gram: Array,
    lowest: float,
    seeds: Sequence[int],
    scores: Scores,
    counts: Sequence[int] = (),
) -> None:
    """Every design from every seed; the choices are all asked of `pool.loss`."""
    counts = counts or [
        *(round(share * pool.size) for share in _SHARES),
        *([60] if pool.size == _SIXTY else []),
    ]
    others = random_subsets(pool.names, _RANDOM, seed=0)
    for count in counts:
        for seed in seeds:
            for design, subsets in _designs(pool, count, seed):
                for geometry in (None, gram):
                    said = "without" if geometry is None else "with"
                    score = scores[pool.name, count, design, said]
                    _judge(pool, subsets, geometry, others, lowest, score)


def _designs(pool: KnownPool, count: int, seed: int) -> Iterator[tuple[str, list[Subset]]]:
    """What is asked for by count, and by budget where that is another."""
    first = first_subsets(pool.names, count, seed=seed)
    yield "first", first
    experts = {name: Path(name) for name in pool.names}
    models = Pool((PoolSize(Path("base"), experts, 8e4),), {}, {"average": {}})
    plan = SubsetPlan(models, budget=Budget(merges=count + 1), seed=seed)  # the base counts too
    step = next_subset_round(Measurements((), ""), plan)
    within = [merge.subset for merge in step.merges if merge.k]  # type: ignore[union-attr]
    if set(within) != set(first):
        yield "budget", within


def _judge(
    pool: KnownPool,
    subsets: Sequence[Subset],
    gram: Array | None,
    others: Sequence[Subset],
    lowest: float,
    score: Score,
) -> None:
    base = Measurement(
        row=1, k=0, loss_nats=pool.losses[()], method="average", domain=MACRO, subset=()
    )
    table = tables_of([base, *pool.measured(subsets).rows])[0]
    try:
        law = fit_table(replace(table, gram=gram), MACRO)
    except InputError:
        score.refused += 1
        return
    problem = Problem(law)
    by_size, _ = settle(problem, best_by_size(problem))
    best = min(by_size.values(), key=lambda choice: choice.value)
    loss = pool.loss(best.subset)
    score.regret.append(loss - lowest)
    score.held.append(best.low - _EQUAL <= loss <= best.high + _EQUAL)
    left = [subset for subset in others if subset not in set(subsets)]
    weights = np.array([[(name in s) / len(s) for name in pool.names] for s in left])
    truth = np.array([pool.loss(subset) for subset in left])
    errors = law.predict(weights) - truth
    score.covered.append(float(np.mean(np.abs(errors) <= _NINE_IN_TEN * law.deviations(weights))))
    score.r2.append(1 - float(np.sum(errors**2) / np.sum((truth - truth.mean()) ** 2)))


def _simulated(kind: str, size: int, seed: int) -> tuple[KnownPool, Array, SimulatedLoss]:
    """A simulated pool with its base, and its task vectors' inner products."""
    rng = np.random.default_rng([seed, size, sum(map(ord, kind))])
    rule = KINDS[kind](size, rng)
    pool = simulated(f"simulated, M = {size}", size, rule)
    nothing = np.zeros((1, rule.vectors.shape[1]))
    pool.losses[()] = float(rule.by_k(nothing, np.zeros(1))[0])
    return pool, rule.vectors @ rule.vectors.T, rule


def _lowest_known(pool: KnownPool) -> float:
    return min(loss for subset, loss in pool.losses.items() if subset)


def _lowest(rule: SimulatedLoss) -> float:
    """Of a simulated pool, by single changes and swaps from each size grown greedily."""
    members = np.zeros(len(rule.vectors), np.bool_)
    lowest = np.inf
    while not members.all():
        tries = [_with(members, [i]) for i in np.flatnonzero(~members)]
        members = tries[int(np.argmin(_losses(rule, np.array(tries))))]
        lowest = min(lowest, _improved(rule, members))
    return lowest


def _improved(rule: SimulatedLoss, members: NDArray[np.bool_]) -> float:
    loss = np.inf
    while True:
        inside, outside = np.flatnonzero(members), np.flatnonzero(~members)
        tries = [
            _with(members, [i]) for i in range(len(members)) if len(inside) > 1 or i in outside
        ]
        tries += [_with(members, [i, j]) for i in inside for j in outside]
        losses = _losses(rule, np.array(tries))
        at = int(np.argmin(losses))
        if losses[at] >= loss - _EQUAL:
            return float(loss)
        members, loss = tries[at], losses[at]


def _with(members: NDArray[np.bool_], changed: list[int]) -> NDArray[np.bool_]:
    other = members.copy()
    other[changed] = ~other[changed]
    return other


def _losses(rule: SimulatedLoss, members: NDArray[np.bool_]) -> Array:
    k = members.sum(1)
    return rule.by_k(members @ rule.vectors / k[:, None], k.astype(np.float64))


def report(scores: Scores) -> list[str]:
    """Lines for people; losses in thousandths of a nat."""
    lines = [
        "pool, merges, design, geometry: mean (worst) regret, share of chosen and of random subsets"
        " within 90 %, median (worst) R² of random subsets, tables refused"
    ]
    for (pool, count, design, geometry), score in scores.items():
        line = f"{pool:18} {count:4} {design:7} {geometry:8}"
        if score.regret:
            regret = 1e3 * np.array(score.regret)
            line += (
                f" regret {regret.mean():6.2f} ({regret.max():6.2f}) | {np.mean(score.held):4.0%}"
                f" {np.mean(score.covered):4.0%} | R² {np.median(score.r2):5.3f}"
                f" ({min(score.r2):5.2f})"
            )
        if score.refused:
            line += f" | {score.refused} refused"
        lines.append(line)
    return lines


def data(scores: Scores) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "pool": pool,
            "merges": count,
            "design": design,
            "geometry": geometry,
            "refused": score.refused,
            "regret": score.regret,
            "held": float(np.mean(score.held)) if score.held else None,
            "covered": float(np.mean(score.covered)) if score.covered else None,
            "r2": score.r2,
        }
        for (pool, count, design, geometry), score in scores.items()
    ]
