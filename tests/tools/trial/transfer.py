"""From small to large on trial: what few merges of a larger base tell, with and without a smaller
one, and whether a smaller one of other experts, behind the same names, does any harm.

At the smaller size 45 of `first_subsets` are measured, at the larger one so many random merges; the
base is at both. All figures are of the larger size, and of subsets that were not measured there.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO, Measurement
from mergeplan.selection.active import first_subsets
from mergeplan.selection.problem import equal_weights
from mergeplan.selection.select import select_from
from mergeplan.selection.selection import Selection, Wish
from mergeplan.selection.sizes import link_sizes
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.spread import NINE_IN_TEN
from tests.support.settings import DATA
from tests.tools.trial.pools import Subset, hard_pools
from tests.tools.trial.subsets import Score

Array = NDArray[np.float64]
Rows = list[Measurement]

_AT_SMALL = 45
_SIZES = {"80k": 80592.0, "270k": 269120.0, "850k": 846976.0}
# The pairs and the word for a smaller size that is none of the same experts.
OTHERS, INDEPENDENT = "other experts", "two pools"


@dataclass
class Told:
    """What one number of merges told of one pair of sizes, with or without the smaller one.

    Attributes:
        r2, rank: Of the subsets that were not measured: explained variance, rank correlation.
        held: Share of them in their 90 % interval.
        chosen: Of the subset that is named as the best.
        share: That carries over; `used` where the law leans on it.
    """

    r2: list[float] = field(default_factory=list)
    rank: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    chosen: Score = field(default_factory=Score)
    share: list[float] = field(default_factory=list)
    used: list[bool] = field(default_factory=list)


Found = dict[tuple[str, int, str], Told]


def on_trial(*, share: bool, seed: int, each: int) -> Found:
    """All pairs of sizes, with random merges at the larger one."""
    found: Found = defaultdict(Told)
    for name, small, large in _share(seed) if share else _pairs(seed, each):
        for count in (15,) if share else (10, 20, 30):
            for number in range(2 if share else each):
                merges = _some(large, count, seed + number)
                if OTHERS in name:
                    # Another one who has the name, in each design.
                    merges, truth = (
                        _renamed(rows, large, seed + number) for rows in (merges, large)
                    )
                else:
                    truth = large
                few = _first(small, _AT_SMALL, seed + number)
                *_, linked = link_sizes(tables_of([*few, *merges]))
                alone = replace(linked, smaller=())
                for who, table in (("with", linked), ("without", alone)):
                    _judge(select_from(table, Wish()), truth, found[name, count, who])
    return dict(found)


def _share(seed: int) -> Iterator[tuple[str, Rows, Rows]]:
    sweeps = _sweeps("average")
    yield "80k to 270k", sweeps["80k"], sweeps["270k"]
    yield f"80k to 270k, {OTHERS}", sweeps["80k"], sweeps["270k"]


def _pairs(seed: int, each: int) -> Iterator[tuple[str, Rows, Rows]]:
    """Of the byte-level pools, and of simulated pools that have nothing but names in common."""
    for method in ("average", "ties"):
        sweeps = _sweeps(method)
        word = "" if method == "average" else f", {method}"
        for large in sweeps:
            for small in list(sweeps)[: list(sweeps).index(large)]:
                yield f"{small} to {large}{word}", sweeps[small], sweeps[large]
        for small, large in pairwise(sweeps):
            yield f"{small} to {large}{word}, {OTHERS}", sweeps[small], sweeps[large]
    pools = [pool for pool in hard_pools((8,), 2, seed) if "noise" not in pool.name]
    for one, other in zip(pools[::2], pools[1::2], strict=True):
        rows = [
            [replace(row, n_params=n_params) for row in pool.measured(pool.losses).rows]
            for pool, n_params in ((one, 1e5), (other, 1e6))
        ]
        yield f"{INDEPENDENT}, {one.name}", rows[0], rows[1]


def _sweeps(method: str) -> dict[str, Rows]:
    """The rows of the complete sweeps by size, of one method and of the base."""
    found = {}
    for name in _SIZES:
        rows = [
            row
            for path in sorted(DATA.glob(f"select_{name}*.csv"))
            for row in read_rows(path)[0]
            if row.domain == MACRO and (row.k == 0 or row.method == method)
        ]
        if any(row.k for row in rows):
            found[name] = rows
    return found


def _first(rows: Rows, count: int, seed: int) -> Rows:
    names = max((row.subset for row in rows), key=len)
    wanted = set(first_subsets(names, count, seed=seed))
    return [row for row in rows if row.k == 0 or row.subset in wanted]


def _some(rows: Rows, count: int, seed: int) -> Rows:
    """The base, all together, so that every expert has its name, and random merges."""
    largest = max(row.k for row in rows)
    ends = [row for row in rows if row.k in (0, largest)]
    others = [row for row in rows if 0 < row.k < largest]
    chosen = np.random.default_rng(seed).choice(len(others), count - 1, replace=False)
    return [*ends, *(others[i] for i in chosen)]


def _renamed(rows: Rows, every: Rows, seed: int) -> Rows:
    """The same losses with every expert under another's name."""
    names = list(max((row.subset for row in every), key=len))
    rng = np.random.default_rng([seed, 1])
    while True:
        other = dict(zip(names, rng.permutation(names).tolist(), strict=True))
        if all(name != its for name, its in other.items()):
            break
    return [replace(row, subset=tuple(sorted(other[name] for name in row.subset))) for row in rows]


def _judge(found: Selection, truth: Rows, told: Told) -> None:
    law, best = found.law, found.best
    assert best is not None
    losses: dict[Subset, float] = {row.subset: row.loss_nats for row in truth if row.k}
    weights = equal_weights(np.array([[n in s for n in law.experts] for s in losses]))
    true = np.array(list(losses.values()))
    left = np.isnan(law.measured(weights))
    predicted, true = law.predict(weights)[left], true[left]
    errors = predicted - true
    told.r2.append(1 - float(errors @ errors / ((true - true.mean()) ** 2).sum()))
    told.rank.append(float(np.corrcoef(_ranks(predicted), _ranks(true))[0, 1]))
    around = NINE_IN_TEN * law.deviations(weights)[left]
    told.held.append(float(np.mean(np.abs(errors) <= around)))
    loss = losses[best.subset]
    told.chosen.judge(best.value, best.low, best.high, loss, best.measured)
    told.chosen.regret.append(loss - min(losses.values()))
    told.share.append(law.transfer.share if law.transfer else 0.0)
    told.used.append(law.smaller is not None)


def _ranks(values: Array) -> Array:
    return np.argsort(np.argsort(values)).astype(np.float64)


def report(found: Found) -> list[str]:
    """Lines for people; losses in thousandths of a nat."""
    lines = [
        "at the larger size: R² (worst), rank correlation, share of 90 % intervals that held; of"
        " the chosen subset: regret (worst), bias, share held, interval score; share that carries"
        " over (lowest to highest), used",
    ]
    for (name, count, who), told in found.items():
        chosen = told.chosen
        line = (
            f"{name:<34} {count:3} {who:<7} R² {np.mean(told.r2):.3f} ({min(told.r2):.3f}) rank"
            f" {np.mean(told.rank):.3f} held {np.mean(told.held):4.0%} | regret"
            f" {1e3 * np.mean(chosen.regret):5.2f} ({1e3 * max(chosen.regret):5.2f}) bias"
            f" {1e3 * np.mean(chosen.bias):+6.2f} held {np.mean(chosen.held):4.0%} score"
            f" {1e3 * np.mean(chosen.winkler):6.2f}"
        )
        if who == "with":
            line += (
                f" | share {np.median(told.share):.2f} ({min(told.share):.2f} to"
                f" {max(told.share):.2f}), used {np.mean(told.used):.0%}"
            )
        lines.append(line)
    return lines


def data(found: Found) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "sizes": name,
            "merges": count,
            "who": who,
            "r2": float(np.mean(told.r2)),
            "rank": float(np.mean(told.rank)),
            "held": float(np.mean(told.held)),
            "regret": float(np.mean(told.chosen.regret)),
            "bias": float(np.mean(told.chosen.bias)),
            "chosen_held": float(np.mean(told.chosen.held)),
            "winkler": float(np.mean(told.chosen.winkler)),
            "share": float(np.median(told.share)),
            "used": float(np.mean(told.used)),
            "n": len(told.r2),
        }
        for (name, count, who), told in found.items()
    ]
