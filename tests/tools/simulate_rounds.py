"""How many merges calibration takes, on a sweep in which every subset was measured.

Three ways to choose what to measure: the rounds of `mergeplan.calibration`; the same ends (base,
single experts, all experts) with random subsets of 2 and 4 in turn; random subsets of any size.
Each goes on until one k alone is active, or says that it cannot be told.

    python tests/tools/simulate_rounds.py [--seeds 10] [--most 300]
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mergeplan.calibration.curve_rounds import CurvePlan, Stop, next_round
from mergeplan.calibration.decision import CurveGoal, Decision, decide
from mergeplan.law.fit import fit, fit_series
from mergeplan.law.series import series_of
from mergeplan.measurements.file import load_measurements
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.pool.pool import load_pool

DEMO = Path(__file__).parents[2] / "python" / "mergeplan" / "demo" / "pool"
STEP = 4
Outcome = tuple[int, int | None]


def in_rounds(rows: list[Measurement], plan: CurvePlan) -> Outcome:
    """Merges measured, and the k decided on."""
    measured: list[Measurement] = []
    while True:
        step = next_round(Measurements(tuple(measured), ""), plan)
        if isinstance(step, Stop):
            return len(measured), step.decision.k if step.decision else None
        wanted = {merge.subset for merge in step.merges}
        measured += [row for row in rows if row.subset in wanted]


def at_random(orders: Iterator[list[Measurement]], plan: CurvePlan) -> Outcome:
    """The same, for rows that come in an order that is fixed beforehand."""
    for rows in orders:
        decision = _decision(rows, plan)
        if decision.reach == 0:
            return len(rows), decision.k
    return 999, None


def _decision(rows: list[Measurement], plan: CurvePlan) -> Decision:
    data = Measurements(tuple(rows), "")
    (series,) = series_of(data, domain=None, method=None, pool_size=len(plan.names))
    return decide(fit_series(series), plan.wish)


def two_and_four(rows: list[Measurement], seed: int, most: int) -> Iterator[list[Measurement]]:
    rng = random.Random(seed)
    ends = [row for row in rows if row.k in (0, 1, 9)]
    pairs, fours = ([row for row in rows if row.k == k] for k in (2, 4))
    rng.shuffle(pairs)
    rng.shuffle(fours)
    for more in range(9, min(most, 162) - len(ends), STEP):
        two = min(more // 2, len(pairs))
        yield ends + pairs[:two] + fours[: more - two]


def anything(rows: list[Measurement], seed: int, most: int) -> Iterator[list[Measurement]]:
    shuffled = [row for row in rows if row.k]
    random.Random(seed).shuffle(shuffled)
    for count in range(20, most, STEP):
        yield shuffled[:count]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--most", type=int, default=300)
    args = parser.parse_args()
    pool = load_pool(DEMO / "pool.yml")
    data = load_measurements(DEMO / "measurements.csv")
    for label in pool.methods:
        rows = [row for row in data.rows if row.method == label]
        law = fit(data, method=label).fits[0]
        losses = {point.k: point.loss for point in law.series.points}
        between = (losses[5] + losses[6]) / 2
        for wish in (
            CurveGoal(fraction=0.8),
            CurveGoal(target_loss=between),
            CurveGoal(fraction=0.9),
        ):
            plan = CurvePlan(pool, label=label, wish=wish, until=0, scan=False)
            print(f"{label}, {wish}: all subsets say {decide(law, wish)}")
            seeds = range(args.seeds)
            outcomes = {
                "rounds, until k +- 1": [
                    in_rounds(rows, replace(plan, seed=s, until=1)) for s in seeds
                ],
                "rounds, until k +- 0": [in_rounds(rows, replace(plan, seed=s)) for s in seeds],
                "ends, 2 and 4": [at_random(two_and_four(rows, s, args.most), plan) for s in seeds],
                "any subset": [at_random(anything(rows, s, args.most), plan) for s in seeds],
            }
            for name, found in outcomes.items():
                merges, ks = sorted(n for n, _ in found), [k for _, k in found]
                print(f"  {name:<22} merges {merges}, k {ks}", flush=True)


if __name__ == "__main__":
    main()
