"""How many merges `calibrate --for select` takes, on a sweep in which every subset was measured.

Rounds go on until they stop by themselves; regret is the measured loss of the subset that they
name less that of the best of all 511.

    python tests/tools/simulate_selecting.py [--seeds 10] [--sweep MEASUREMENTS.csv --pool POOL.yml]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mergeplan.calibration.curve_rounds import Stop
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.pool.pool import load_pool

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "tests" / "data" / "select_80k.csv"
DEMO = ROOT / "python" / "mergeplan" / "demo" / "pool" / "pool.yml"


def in_rounds(rows: Sequence[Measurement], plan: SubsetPlan) -> tuple[int, float]:
    """Merges measured beside the base, and the regret."""
    # Masks of one seed stand for those of any.
    own = [replace(row, seed="") for row in rows if row.k == 0 or row.method == plan.label]
    wanted: set[tuple[str, ...]] = set()
    while True:
        measured = Measurements(tuple(row for row in own if row.subset in wanted), "")
        step = next_subset_round(measured, plan)
        if isinstance(step, Stop):
            break
        wanted |= {merge.subset for merge in step.merges}
    named = tuple(step.reason.split(" has ")[0].split("+"))
    domain = plan.domains or MACRO
    losses = {row.subset: row.loss_nats for row in own if row.k and row.domain == domain}
    return len(wanted) - 1, losses[named] - min(losses.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--pool", type=Path, default=DEMO)
    parser.add_argument("--domain", help="default: all that the sweep has")
    args = parser.parse_args()
    seeds = range(args.seeds)
    rows, _ = read_rows(args.sweep)
    methods = {row.method: json.loads(row.options) for row in rows if row.k}
    pool = replace(load_pool(args.pool), methods=methods)
    wanted = {args.domain} if args.domain else {row.domain for row in rows}
    domains = sorted({(r.method, r.domain) for r in rows if r.k and r.domain in wanted})
    for label, domain in domains:
        plan = SubsetPlan(pool, label=label, domains=domain)
        found = [in_rounds(rows, replace(plan, seed=seed)) for seed in seeds]
        merges, regrets = sorted(n for n, _ in found), [regret for _, regret in found]
        print(f"{label}, {domain}: merges {merges}, worst regret {max(regrets):.5f}", flush=True)


if __name__ == "__main__":
    main()
