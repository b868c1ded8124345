"""How well few merges predict all subsets of a pool, from a sweep in which all were measured.

    python tests/tools/measure_select.py MEASUREMENTS.csv
    python tests/tools/measure_select.py MEASUREMENTS.csv --gram POOL_DIR
    python tests/tools/measure_select.py DOWNSTREAM.csv --pairs

Each method's form is fitted to singles and pairs, to 30 and to 60 subsets of `first_subsets`, and
to 30 such and 30 more that the law itself asks for, round by round; five designs each, the median
is printed. R², rank correlation and coverage are of the subsets that were not measured; regret is
the measured loss of the subset that would be taken less that of the best of all.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from mergeplan.measurements.file import read_rows
from mergeplan.selection.active import confidence_of, first_subsets
from mergeplan.selection.choices import best_by_size
from mergeplan.selection.draws import settle
from mergeplan.selection.problem import Problem
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.spread import NINE_IN_TEN

SEEDS = range(5)
ROUND = 5


class Sweep:
    """All subsets of one method on one domain."""

    def __init__(self, table, name, gram):
        on = np.abs(table.weights.sum(1) - 1) < 1e-6
        target = table.target(name)
        there = np.isfinite(target.values)
        self.experts, self.gram, self.higher, self.name = table.experts, gram, target.higher, name
        self.weights = table.weights[on & there]
        self.values = target.values[on & there]
        base = (table.weights.sum(1) == 0) & there
        self.shrinkages = table.shrinkages
        self.base = np.flatnonzero(base)[:1]
        self.all_weights, self.all_values = table.weights, target.values
        self.sign = -1.0 if target.higher else 1.0
        self.keys = {tuple(row > 0): i for i, row in enumerate(self.weights)}

    def index(self, subset):
        return self.keys[tuple(name in subset for name in self.experts)]

    def fit(self, rows):
        weights = np.vstack([self.weights[rows], self.all_weights[self.base]])
        values = np.concatenate([self.values[rows], self.all_values[self.base]])
        return fit_subset_law(
            weights,
            values,
            self.experts,
            name=self.name,
            higher=self.higher,
            gram=self.gram,
            shrinkages=self.shrinkages,
        )

    def regret(self, row):
        return self.sign * self.values[row] - (self.sign * self.values).min()

    def judge(self, rows):
        """(R², rank correlation, coverage, regret) of a fit to some rows."""
        law = self.fit(rows)
        rest = np.setdiff1d(np.arange(len(self.values)), rows)
        truth, predicted = self.values[rest], law.predict(self.weights[rest])
        errors = predicted - truth
        inside = np.abs(errors) <= NINE_IN_TEN * law.deviations(self.weights[rest])
        chosen = self.sign * law.predict(self.weights)
        chosen[rows] = self.sign * self.values[rows]
        total = ((truth - truth.mean()) ** 2).sum()
        return (
            1 - (errors**2).sum() / total if total else np.nan,
            spearmanr(predicted, truth)[0] if np.ptp(truth) else np.nan,
            inside.mean(),
            self.regret(int(np.argmin(chosen))),
        )

    def active(self, first, count, seed):
        rows = [self.index(s) for s in first_subsets(self.experts, first, seed=seed)]
        while len(rows) < count:
            problem = Problem(self.fit(rows))
            sizes, draws = settle(problem, best_by_size(problem))
            best = min(sizes.values(), key=lambda choice: problem.sign * choice.value)
            asked = confidence_of(draws, best, count=min(ROUND, count - len(rows))).next
            rows += [self.index(subset) for subset in asked]
        return rows

    def ranked_prefixes(self):
        """Regret of the best prefix of the experts ranked by their own value."""
        alone = [self.index((name,)) for name in self.experts]
        order = [self.experts[i] for i in np.argsort(self.sign * self.values[alone])]
        prefixes = [self.index(order[:k]) for k in range(1, len(order) + 1)]
        return min(self.regret(row) for row in prefixes)

    def forward(self, budget):
        """Regret of greedy forward search with so many measurements."""
        inside, best, measured = [], np.inf, 0
        while len(inside) < len(self.experts):
            tries = []
            for name in self.experts:
                if name not in inside and measured < budget:
                    tries.append((self.regret(self.index([*inside, name])), name))
                    measured += 1
            if not tries:
                break
            value, name = min(tries)
            best = min(best, value)
            inside.append(name)
        return best


def gram_of(folder, experts):
    from safetensors.numpy import load_file

    def flat(name):
        tensors = load_file(folder / name / "model.safetensors")
        return np.concatenate([tensors[key].astype(float).ravel() for key in sorted(tensors)])

    base = flat("base")
    deltas = np.array([flat(name) - base for name in experts])
    return deltas @ deltas.T


def line(label, results):
    table = np.array(results)
    r2, rank, _, regret = np.median(table, axis=0)
    print(
        f"  {label:22} R2 {r2:7.4f}  rank {rank:6.4f}  90 %: {table[:, 2].mean():4.2f}"
        f"  regret {regret:.5f} (worst {table[:, 3].max():.5f})",
        flush=True,
    )


def measure(sweep, pairs_only):
    sizes = (sweep.weights > 0).sum(1)
    pairs = np.flatnonzero(sizes <= 2)
    line(f"singles, pairs: {len(pairs)}", [sweep.judge(pairs)])
    all_of_them = np.flatnonzero(sizes == len(sweep.experts))
    line("  and all merged", [sweep.judge(np.concatenate([pairs, all_of_them]))])
    if pairs_only:
        return
    for count in (30, 45, 60):
        designs = [
            [sweep.index(s) for s in first_subsets(sweep.experts, count, seed=seed)]
            for seed in SEEDS
        ]
        line(f"{count} chosen", [sweep.judge(rows) for rows in designs])
    for first, count in ((20, 30), (30, 60)):
        designs = [sweep.active(first, count, seed) for seed in SEEDS]
        line(f"{first}, then {count - first} asked for", [sweep.judge(rows) for rows in designs])
    gaps = sweep.sign * sweep.values - (sweep.sign * sweep.values).min()
    print(
        f"  regret of baselines: a random subset {gaps.mean():.5f}; by own loss"
        f" {sweep.ranked_prefixes():.5f} (17 merges); forward with 30 merges"
        f" {sweep.forward(30):.5f}, with 45 {sweep.forward(45):.5f}"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--gram", type=Path, help="a pool's folder: the prior is in its geometry")
    parser.add_argument("--pairs", action="store_true", help="only from singles, pairs and all")
    parser.add_argument("--domain", action="append", help="default: macro, else every metric")
    parser.add_argument("--method")
    args = parser.parse_args()
    rows, _ = read_rows(args.measurements)
    for table in tables_of(rows, args.method):
        gram = gram_of(args.gram, table.experts) if args.gram else None
        default = ["macro"] if "macro" in table.targets else list(table.targets)
        for name in args.domain or default:
            sweep = Sweep(table, name, gram)
            print(f"{table.method} {table.options} {name}: {len(sweep.values)} subsets")
            measure(sweep, args.pairs)


if __name__ == "__main__":
    main()
