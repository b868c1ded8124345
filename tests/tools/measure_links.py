"""How a loss and the scores of the same merges go together, and what few experts tell of more.

    python -m tests.tools.measure_links MEASUREMENTS.csv [--early 4]

Three tables: rank correlations of the loss with each score, over all merges and those of one k; of
each domain's own loss with the task that is named after it; and the means and the single subsets of
more than --early experts, from those of fewer. Where the run kept the items' scores beside its
table, they count.
"""

import argparse
import tempfile
from math import comb
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from mergeplan.errors import InputError
from mergeplan.evaluation.item_scores import with_item_scores
from mergeplan.law.fit import fit
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.selection.score_link import score_links
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.spread import NINE_IN_TEN


def links_of(rows):
    return score_links(tables_of(rows)[0]) if len({row.subset for row in rows}) > 1 else ()


def told(link):
    return f"{link.rank:+.2f} ({link.low:+.2f} to {link.high:+.2f})"


def links(rows):
    sizes = sorted({row.k for row in rows if row.k})
    by_k = {k: {one.score: one for one in links_of([r for r in rows if r.k == k])} for k in sizes}
    kept = [k for k in sizes if by_k[k]]
    print(f"| score | all merges | {' | '.join(f'k = {k}' for k in kept)} | cost | of it noise |")
    print("|---" * (len(kept) + 4) + "|")
    for link in links_of(rows):
        cells = [told(by_k[k][link.score]) if link.score in by_k[k] else "" for k in kept]
        around = "" if link.cost_error is None else f" ± {NINE_IN_TEN * link.cost_error:.4f}"
        noise = "" if link.noise is None else f"{link.noise:.0%}"
        cells += [f"{link.cost:.4f}{around}", noise]
        print(f"| {link.score} | {told(link)} | {' | '.join(cells)} |")


def own_links(rows):
    print("\n| task | its domain's own loss | cost |\n|---|---|---|")
    domains = sorted({row.domain for row in rows if not row.metric})
    for task in sorted({row.domain for row in rows if row.metric}):
        for domain in domains:
            if task.endswith(f"_{domain}"):
                own = [r for r in rows if r.domain == (task if r.metric else domain)]
                for link in links_of(own):
                    print(f"| {link.score} | {told(link)} | {link.cost:.4f} |")


def means(rows, early, metric):
    """The mean at each larger k, by the law of the smaller ones and as it was measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements.csv"
        path.write_text(table_text([row for row in rows if row.k <= early], COLUMNS))
        try:
            few = fit(path, metric=metric, pool_size=max(row.k for row in rows))
        except InputError as error:
            print(f"means of {metric or 'loss'}: refused, {error}")
            return
    own = target_of(tables_of(rows)[0], metric)
    k = (tables_of(rows)[0].weights > 0).sum(1)
    for size in sorted(set(k[k > early])):
        found, some = few.predict(int(size)), own.values[k == size]
        error = some.std(ddof=1) / len(some) ** 0.5 if len(some) > 1 else 0.0
        error *= (1 - len(some) / comb(k.max(), size)) ** 0.5
        print(
            f"| {metric or 'loss'} | {size} | {found.loss:.4f} ({found.low:.4f} to"
            f" {found.high:.4f}) | {some.mean():.4f} ± {error:.4f}, of {len(some)} |"
        )


def target_of(table, metric):
    """The macro loss, or a metric's mean over its tasks."""
    if not metric:
        return table.target("macro")
    return table.target(",".join(n for n, one in table.targets.items() if one.metric == metric))


def subsets(rows, early):
    print(f"\n| | subsets of more than {early} | R² | rank correlation | held in 90 % intervals |")
    print("|---|---|---|---|---|")
    (table,) = tables_of(rows)
    k = (table.weights > 0).sum(1)
    few, rest = (k <= early) & (k > 0), k > early
    metrics = sorted({one.metric for one in table.targets.values()})
    wanted = [target_of(table, metric) for metric in metrics]
    held_in_all = []
    for target in [*wanted, *(one for one in table.targets.values() if one.metric)]:
        noise = target.noise
        law = fit_subset_law(
            table.weights[few], target.values[few], table.experts, name=target.name,
            higher=target.higher, noise=None if noise is None else np.diag(noise[few]),
        )  # fmt: skip
        truth, found = target.values[rest], law.predict(table.weights[rest])
        own = 0.0 if noise is None else noise[rest]
        half = NINE_IN_TEN * np.sqrt(law.deviations(table.weights[rest]) ** 2 + own)
        held = np.abs(found - truth) <= half
        said = "the same for all |"
        if np.ptp(truth) > 0:
            r2 = 1 - ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
            said = f"{r2:.2f} | {spearmanr(found, truth)[0]:.2f}"
        name = target.metric if "," in target.name else target.name
        print(f"| {name} | {len(truth)} | {said} | {share(held)} |")
        if target not in wanted:
            held_in_all.append(held)
    if held_in_all:
        print(f"tasks together: {share(np.concatenate(held_in_all))}")


def share(held):
    """With its binomial error."""
    p = held.mean()
    return f"{held.sum()} of {len(held)}, {p:.0%} ± {np.sqrt(p * (1 - p) / len(held)):.0%}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--early", type=int, default=4, help="the largest k that is taken to know")
    args = parser.parse_args()
    rows = with_item_scores(args.measurements, read_rows(args.measurements)[0])
    links(rows)
    own_links(rows)
    print("\n| | k | from fewer experts | measured |\n|---|---|---|---|")
    for metric in sorted({row.metric for row in rows}):
        means(rows, args.early, metric)
    subsets(rows, args.early)


if __name__ == "__main__":
    main()
