"""Means of sampled subsets on trial: curves of single domains, where who is in them matters most.

A domain's own expert moves it more than all others. Pools are measured: averages of the byte pools
of 80 and 270 thousand parameters and of a language model, task arithmetic and DARE of the smallest.
Only `fit` and `predict` are asked, so that the judge runs on earlier states as well:
`PYTHONPATH=EARLIER/python python -m tests.tools.trial --only means`.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import comb
from pathlib import Path

import numpy as np

from mergeplan.law.fit import fit
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO
from mergeplan.pool.designs import choose_subsets
from tests.support.settings import DATA
from tests.tools.trial.pools import KnownPool, Subset

CONFIDENCE = 0.9
# Subsets of k = 2 and 4 each, and whether all experts are measured; all single experts are.
DESIGNS = {"8 and all": (8, True), "8": (8, False), "3 and all": (3, True)}


@dataclass
class Score:
    """One domain of one pool by one design.

    Attributes:
        drop: L(1) - L(M) in nats.
        worst: For each draw, the largest error of the expected mean at any k, in nats.
        held, winkler: Of 90 % intervals, where some subsets of k were not measured; over the drop.
    """

    drop: float
    worst: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    winkler: list[float] = field(default_factory=list)


# By pool, design and domain.
Scores = dict[tuple[str, str, str], Score]


def on_trial(*, share: bool, seed: int, each: int) -> Scores:
    """Every domain of every pool by every design; fifty draws of each as the trial stands."""
    scores: Scores = {}
    for pool, domain, known in domains():
        if share and (domain not in ("html", "python") or "80,592" not in pool):
            continue
        for design in list(DESIGNS)[: 1 if share else None]:
            score = scores[pool, design, domain] = Score(known.means[1] - known.means[known.size])
            for number in range(2 if share else 4 * each + 2):
                judge(known, design, seed + number, score)
    return scores


def judge(pool: KnownPool, design: str, seed: int, score: Score) -> None:
    """One draw of subsets."""
    count, whole = DESIGNS[design]
    measured: list[Subset] = [(name,) for name in pool.names]
    measured += [tuple(sorted(pool.names))] if whole else []
    for k in (2, 4):
        measured += choose_subsets("uniform", list(pool.names), k, count, seed=seed)
    law = fit(pool.measured(measured), pool_size=pool.size).fits[0]
    counts = {k: sum(len(subset) == k for subset in measured) for k in pool.means}
    errors = []
    for k, truth in pool.means.items():
        said = law.predict(k, CONFIDENCE)
        errors.append(abs(said.loss - truth))
        if counts[k] < comb(pool.size, k):
            missed = max(said.low - truth, truth - said.high, 0.0)
            score.held.append(missed <= 1e-9 * score.drop)
            width = said.high - said.low
            score.winkler.append((width + 2 / (1 - CONFIDENCE) * missed) / score.drop)
    score.worst.append(max(errors))


def domains() -> Iterator[tuple[str, str, KnownPool]]:
    """Pools with their losses on one domain, and the means of those k that were measured whole."""
    tables: dict[tuple[str, str], dict[Subset, float]] = defaultdict(dict)
    for name in ("real_pools.csv", "real_lm_pool.csv"):
        for row in read_rows(DATA / name)[0]:
            if row.k and row.domain != MACRO and row.n_params != 846_976:
                pool = f"{row.n_params:,.0f} parameters, average"
                tables[pool, row.domain][tuple(sorted(row.subset))] = row.loss_nats
    for line in _wide(DATA / "domains_80k.csv"):
        method, subset = line.pop("method"), tuple(sorted(line.pop("subset").split("+")))
        for domain, loss in line.items():
            tables[f"80,592 parameters, {method}", domain][subset] = float(loss)
    for (pool, domain), losses in tables.items():
        names = max(losses, key=len)
        by_k: dict[int, list[float]] = defaultdict(list)
        for subset, loss in losses.items():
            by_k[len(subset)].append(loss)
        means = {
            k: float(np.mean(values))
            for k, values in sorted(by_k.items())
            if len(values) == comb(len(names), k)
        }
        yield pool, domain, KnownPool(f"{pool}, {domain}", names, means, losses)


def _wide(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pooled(scores: Scores, pool: str, design: str) -> dict[str, float]:
    """Means over domains: of the median over draws of the worst error, of the drop and in nats, and
    of what the intervals did."""
    found = [score for (p, d, _), score in scores.items() if (p, d) == (pool, design)]
    nats = [float(np.median(score.worst)) for score in found]
    return {
        "worst": float(np.mean([n / s.drop for n, s in zip(nats, found, strict=True)])),
        "worst_nats": float(np.mean(nats)),
        "drop": float(np.mean([score.drop for score in found])),
        "held": float(np.mean([np.mean(score.held) for score in found])),
        "winkler": float(np.mean([np.mean(score.winkler) for score in found])),
    }


def report(scores: Scores) -> list[str]:
    """Lines for people."""
    lines = [
        "median over draws of the worst error of the mean at any k, mean over domains: in % of the"
        " drop and in nats; the drop; 90 % intervals: share held, interval score in % of the drop",
    ]
    for pool, design in dict.fromkeys((pool, design) for pool, design, _ in scores):
        one = pooled(scores, pool, design)
        lines.append(
            f"{pool:<40} {design:<10} {100 * one['worst']:6.2f} % {one['worst_nats']:.5f}"
            f" of {one['drop']:.4f} | {one['held']:5.0%} {100 * one['winkler']:6.2f}"
        )
    return lines


def data(scores: Scores) -> list[dict[str, object]]:
    """The same for programs, with each domain."""
    cells = dict.fromkeys((pool, design) for pool, design, _ in scores)
    return [
        {
            "pool": pool,
            "design": design,
            **pooled(scores, pool, design),
            "domains": {
                domain: {"drop": score.drop, "worst": float(np.median(score.worst))}
                for (p, d, domain), score in scores.items()
                if (p, d) == (pool, design)
            },
        }
        for pool, design in cells
    ]
