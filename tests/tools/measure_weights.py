"""Measure what `select` promises: the best subset and the best weights, merged and scored.

    python tests/tools/measure_weights.py MEASUREMENTS.csv POOL.yml

Takes 60 subsets of `first_subsets` from a sweep of averages, measures each single expert, all, and
some of the others at less strength, fits, and scores the chosen merges. Needs torch; about half a
second a merge for the smallest pool.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mergeplan.calibration.setup import prepare_texts
from mergeplan.calibration.subset_plan import SubsetPlan, first_subset_round
from mergeplan.evaluation.loading import load_model
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.parameters import places_in
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import load_pool
from mergeplan.selection.active import first_subsets
from mergeplan.selection.select import select_from
from mergeplan.selection.selection import Wish
from mergeplan.selection.table import tables_of
from mergeplan.selection.write import config_of


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("measurements", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--merges", type=int, default=60)
    parser.add_argument("--max-tokens", type=int, help="as the sweep was measured")
    args = parser.parse_args()
    pool = load_pool(args.pool)
    size = pool.sizes[0]
    texts = prepare_texts(pool, 0, EvaluationOptions(max_tokens=args.max_tokens))
    model = load_model(size.base, dtype="float32", device="cpu")

    def score(config: dict) -> float:
        sweep = Sweep([config], MergeOptions(threads=1))
        sweep.merge_into([(0, places_in(model, sweep.shapes(0)))])
        return texts.score(model, None).macro().loss_nats

    rows, _ = read_rows(args.measurements)
    names = sorted(size.experts)
    wanted = set(first_subsets(names, args.merges))
    kept = [r for r in rows if r.k == 0 or (r.method == "average" and r.subset in wanted)]
    like = next(r for r in kept if r.k == 1 and r.domain == MACRO)
    pool = replace(pool, methods={"average": {}})
    first = first_subset_round(SubsetPlan(pool, free_sum=True))
    for merge in (merge for merge in first if merge.options != "{}"):
        k, strength = merge.k, merge.settings["lambda"]
        loss = score(merge.config(pool))
        shares = (strength / k,) * k
        kept.append(replace(like, k=k, subset=merge.subset, weights=shares, loss_nats=loss))
        print(f"{'+'.join(merge.subset)} at {strength:g}: {loss:.5f}", flush=True)
    (table,) = tables_of([r for r in kept if r.domain == MACRO])
    selection = select_from(table, Wish())
    every = [r for r in rows if r.method == "average" and r.domain == MACRO and r.k > 0]
    print(f"base {selection.base:.5f}; best of {len(every)} measured subsets", end=" ")
    print(f"{min(r.loss_nats for r in every):.5f}; R2 left out {selection.law.r2:.4f}")
    for kind in ("best", "weighted", "free"):
        choice = getattr(selection, kind)
        measured = score(config_of(selection, choice, pool))
        total = np.sum(list(choice.weights.values()))
        print(
            f"{kind}: predicted {choice.value:.5f} ({choice.low:.5f} to {choice.high:.5f}),"
            f" measured {measured:.5f}, weights sum to {total:.3f}"
        )


if __name__ == "__main__":
    main()
