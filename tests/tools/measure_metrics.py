"""What the law says of benchmarks, on a table in which every subset of a pool was measured.

    python -m tests.tools.measure_metrics tests/data/downstream_8b_5_experts.csv [--seeds 6]

Four tables: means by k and whether a law is fitted to them; what links between value and law would
change; single subsets of three experts and more predicted from singles and pairs, without the
items' errors and with them; and, of made-up answers to the items, what choosing by the measured
values costs, and what by those drawn towards the others'. Items are counted as the benchmarks'
authors do: the table does not say.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, spearmanr

from mergeplan.errors import InputError
from mergeplan.law.diagnose import all_signs
from mergeplan.law.fit import fit
from mergeplan.law.posterior import LOWEST_OFFSET
from mergeplan.law.tails import HYPERBOLIC, fit_curve
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.selection.select import select
from mergeplan.selection.table import tables_of
from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.verdict.answer import verdict_of

ITEMS = {
    "arc": 1172, "gsm8k": 1319, "harmbench_micro_asr": 320, "harmbench_rta": 320,
    "hellaswag": 10042, "humanevalplus": 164, "ifeval": 541, "math_500": 500, "mbppplus": 378,
    "mmlu": 14042, "wildguard_micro_harm": 1725, "wildguard_rta": 1725,
}  # fmt: skip

LINKS = {
    "raw": (lambda p: p, lambda z: z),
    "logit": (logit, expit),
    "probit": (norm.ppf, norm.cdf),
    "log": (np.log, np.exp),
}


def saved(rows, folder):
    path = Path(folder) / "measurements.csv"
    path.write_text(table_text(rows, COLUMNS))
    return path


def means(rows, folder):
    """The law of all means, and what those to k = 3 say of k = 4 and 5."""
    print("| metric | means, k = 1 to 5 | law | k = 4 and 5 from k = 1, 2 and 3 | held |")
    print("|---|---|---|---|---|")
    for name in ITEMS:
        own = [row for row in rows if row.metric == name]
        values = [np.mean([r.loss_nats for r in own if r.k == k]) for k in range(1, 6)]
        try:
            result = fit(saved(own, folder))
            trend = any("no trend" in sign for sign in all_signs(result))
            said = f"R² {result.fits[0].r2:.3f}" + (", no trend" if trend else "")
        except InputError:
            said = "refused"
        early = fit(saved([row for row in own if row.k <= 3], folder), pool_size=5)
        cells, held = [], 0
        for k in (4, 5):
            found = early.predict(k)
            cells.append(f"{found.loss:.3f} ({found.low:.3f} to {found.high:.3f})")
            held += found.low <= values[k - 1] <= found.high
        spoken = " ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {spoken} | {said} | {', '.join(cells)} | {held} of 2 |")


def links(rows, table):
    """Errors in the value itself, whatever the link: of a k that is left out, and of subsets."""
    few = (table.weights > 0).sum(1) <= 2
    print("\n| link | error of a mean left out | R² of subsets, median | mean | rank correlation |")
    print("|---|---|---|---|---|")
    for link, (there, back) in LINKS.items():
        errors, scores, ranks = [], [], []
        for name, target in table.targets.items():
            # The share that is wrong or harmful: less is better.
            value = np.clip(1 - target.values if target.higher else target.values, 1e-3, 1 - 1e-3)
            k = np.arange(1.0, 6)
            mean = np.array([value[(table.weights > 0).sum(1) == x].mean() for x in k])
            shift = 10.0  # no floor is to rest on zero
            for left in range(5):
                kept = k != left + 1
                low = float(np.log1p(LOWEST_OFFSET))
                curve = fit_curve(HYPERBOLIC, k[kept], there(mean[kept]) + shift, k[kept], low)
                errors.append(back(curve.predict(k[left : left + 1])[0] - shift) - mean[left])
            law = fit_subset_law(table.weights[few], there(value[few]), table.experts, name=name)
            found, truth = back(law.predict(table.weights[~few])), value[~few]
            scores.append(1 - ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
            ranks.append(spearmanr(found, truth)[0])
        left = np.sqrt(np.mean(np.square(errors)))
        print(
            f"| {link} | {left:.4f} | {np.median(scores):.3f} | {np.mean(scores):.3f} |"
            f" {np.mean(ranks):.3f} |"
        )


def subsets(table):
    """Subsets of three and more from singles and pairs, without and with the items' errors."""
    k = (table.weights > 0).sum(1)
    few = k <= 2
    print("\n| metric | R² | rank | held | score | with items: R² | rank | held | score |")
    print("|" + "---|" * 9)
    total = []
    for name, target in table.targets.items():
        cells = []
        for noisy in (False, True):
            noise = np.diag(target.noise[few]) if noisy else None
            law = fit_subset_law(
                table.weights[few], target.values[few], table.experts,
                name=name, higher=target.higher, noise=noise,
            )  # fmt: skip
            rest, truth = table.weights[~few], target.values[~few]
            errors = law.predict(rest) - truth
            # A measured share has the error of its own items besides.
            own = target.noise[~few] if noisy else 0.0
            half = NINE_IN_TEN * np.sqrt(law.deviations(rest) ** 2 + own)
            held = np.abs(errors) <= half
            score = np.mean(2 * half + 20 * np.maximum(np.abs(errors) - half, 0))
            r2 = 1 - (errors**2).sum() / ((truth - truth.mean()) ** 2).sum()
            rank = spearmanr(law.predict(rest), truth)[0]
            cells.append(f"{r2:.2f} | {rank:.2f} | {held.mean():.0%} | {score:.3f}")
            total.append((held.sum(), len(held), score))
        print(f"| {name} | {' | '.join(cells)} |")
    for words, some in (("without", total[::2]), ("with", total[1::2])):
        held, n, score = np.array(some).T
        share, count = held.sum() / n.sum(), n.sum()
        error = np.sqrt(share * (1 - share) / count)
        print(f"{words}: {held.sum():.0f} of {count:.0f} held, {share:.0%} ± {error:.0%},", end=" ")
        print(f"mean score {score.mean():.3f}")


def choices(rows, table, seeds, folder):
    """Made-up answers: each item as hard for all merges to some degree, else by chance."""
    print("\n| items, correlation, merges | by | regret | too high by | held | best: said, true |")
    print("|---|---|---|---|---|---|")
    k = (table.weights > 0).sum(1)
    for n_items, rho, design in (
        (300, 0.0, "all"), (300, 0.5, "all"), (300, 0.8, "all"), (1000, 0.5, "all"),
        (300, 0.5, "some"),
    ):  # fmt: skip
        found = {"value": [], "expected": []}
        for number, (name, target) in enumerate(table.targets.items()):
            sign = -1.0 if target.higher else 1.0
            for seed in range(seeds):
                rng = np.random.default_rng([seed, number])
                easy = np.sqrt(rho) * rng.standard_normal(n_items)
                own = np.sqrt(1 - rho) * rng.standard_normal((len(target.values), n_items))
                right = easy + own < norm.ppf(np.clip(target.values, 1e-9, 1 - 1e-9))[:, None]
                drawn = dict(zip(keys(table), right.mean(1).tolist(), strict=True))
                kept = set(keys(table, k != 0))
                if design == "some":
                    middle = [s for s in keys(table) if 1 < len(s) < 5]
                    kept = {s for s in keys(table) if len(s) in (1, 5)}
                    kept |= {middle[i] for i in rng.permutation(len(middle))[:9]}
                own_rows = [r for r in rows if r.metric == name and r.subset in kept]
                truth = {r.subset: sign * r.loss_nats for r in rows if r.metric == name}
                least = min(truth.values())
                for by, n in (("value", None), ("expected", n_items)):
                    made = [replace(r, loss_nats=drawn[r.subset], n_items=n) for r in own_rows]
                    verdict = verdict_of(saved(made, folder))
                    one = verdict.chosen
                    true = truth[one.merge.subset]
                    held = sign * one.low <= true <= sign * one.high or (
                        sign * one.high <= true <= sign * one.low
                    )
                    optimism = true - sign * one.value
                    said, best = np.nan, np.nan
                    if n is not None:
                        (selection,) = select(saved(made, folder))
                        said = selection.confidence.chance_on_texts
                        best = truth[selection.best.subset] == least
                    found[by].append((true - least, optimism, held, said, best))
        for by, some in found.items():
            regret, optimism, held, said, best = np.array(some, float).T
            error = regret.std() / np.sqrt(len(regret))
            sure = "" if by == "value" else f"{said.mean():.0%}, {best.mean():.0%}"
            print(
                f"| {n_items}, {rho:g}, {design} | {by} | {regret.mean():.4f} ± {error:.4f} |"
                f" {optimism.mean():+.4f} | {held.mean():.0%} | {sure} |"
            )


def keys(table, which=slice(None)):
    return [
        tuple(name for name, share in zip(table.experts, row, strict=True) if share > 0)
        for row in table.weights[which]
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    rows = [replace(r, n_items=ITEMS[r.metric]) for r in read_rows(args.measurements)[0]]
    (table,) = tables_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        means(rows, folder)
        links(rows, table)
        subsets(table)
        choices(rows, table, args.seeds, folder)


if __name__ == "__main__":
    main()
