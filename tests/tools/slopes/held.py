"""A run's law held against merges that had no part in it.

    python -m tests.tools.slopes.held RUN/measurements.csv HELD/measurements.csv --further 7

RUN is a folder of `calibrate --for select`, HELD one of `calibrate --subsets`, on the same texts.
Printed are R² over the held-out merges, rank correlation, the share in their 90 % interval and the
root mean square of errors, macro and of all domains taken together: with the slopes that RUN has,
by its values alone, and by those and as many held-out merges as slopes cost passes (`--further`),
which are drawn anew in each of some splits; all laws are then judged by the rest.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from mergeplan.measurements.file import read_rows
from mergeplan.measurements.rows import MACRO
from mergeplan.selection.fitting import fit_table
from mergeplan.selection.geometry import grams_beside, with_grams
from mergeplan.selection.slopes import rows_with_slopes
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.spread import NINE_IN_TEN

SPLITS = 12


def table_of(rows, grams):
    (table,) = with_grams(tables_of(rows, "average"), grams)
    return table


def judged(table, truth, names):
    """Errors, truths less their mean, ranks and shares held, of each name."""
    found = []
    for name in names:
        law, values = fit_table(table, name), truth.target(name).values
        errors = law.predict(truth.weights) - values
        held = np.abs(errors) <= NINE_IN_TEN * law.deviations(truth.weights)
        rank = spearmanr(errors + values, values)[0]
        r2 = 1 - (errors**2).sum() / ((values - values.mean()) ** 2).sum()
        found.append((r2, rank, held.mean(), (errors**2).mean()))
    return np.array(found)


def line(label, tables, truths, names):
    found = np.array([judged(*pair, names) for pair in zip(tables, truths, strict=True)])
    macro, domains = found[:, 0].mean(0), found[:, 1:]
    print(
        f"{label:34} macro R2 {macro[0]:7.4f} rank {macro[1]:6.3f} held {macro[2]:5.2f}"
        f" error {macro[3] ** 0.5:.5f} | domains R2 {np.median(domains[..., 0]):7.4f}"
        f" (least {domains[..., 0].mean(0).min():7.4f}) held {domains[..., 2].mean():5.2f}"
        f" ({domains[..., 2].mean(0).min():.2f} to {domains[..., 2].mean(0).max():.2f})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("held", type=Path)
    parser.add_argument("--further", type=int, default=7)
    given = parser.parse_args()
    rows = read_rows(given.run)[0]
    grams, sloped = grams_beside(given.run, rows), rows_with_slopes(given.run, rows)
    known = {row.subset for row in rows}
    held = [row for row in read_rows(given.held)[0] if row.k and row.subset not in known]
    subsets = sorted({row.subset for row in held})
    names = [MACRO, *sorted({row.domain for row in rows} - {MACRO, None, ""})]

    def of(some):
        return [row for row in held if row.subset in some]

    def plain(some):
        return [replace(row, slopes=()) for row in some]

    every = table_of(plain(held), ())
    sizes = [len(row) for row in subsets]
    print(f"{len(known)} merges, {len(subsets)} held out, of k {min(sizes)} to {max(sizes)}")
    line("with slopes", [table_of(sloped, grams)], [every], names)
    line("values alone", [table_of(rows, grams)], [every], names)
    moved, rest, rng = [], [], np.random.default_rng(0)
    for _ in range(SPLITS):
        taken = {subsets[i] for i in rng.choice(len(subsets), given.further, replace=False)}
        moved.append(table_of([*rows, *of(taken)], grams))
        rest.append(table_of(of(set(subsets) - taken), ()))
    line("with slopes, the rest", [table_of(sloped, grams)] * SPLITS, rest, names)
    line(f"values, {given.further} more, the rest", moved, rest, names)


if __name__ == "__main__":
    main()
