"""`python -m tests.tools.slopes`."""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np

import tests.tools.slopes as tool
from mergeplan.pool.geometry.file import load_grams
from mergeplan.selection.active import first_subsets
from tests.tools.slopes.judge import Truth, line
from tests.tools.slopes.oracle import Merges, Oracle
from tests.tools.slopes.rounds import LATER, Pool, in_rounds

SEEDS = range(5)
# Seconds after which what was measured is written.
_KEPT_EVERY = 20


def weights_of(experts, subsets):
    """Equal weights, shape (n, n_experts)."""
    rows = [[(name in subset) / max(len(subset), 1) for name in experts] for subset in subsets]
    return np.array(rows).reshape(-1, len(experts))


def design(experts, count, seed):
    """Weights of the base and of so many first subsets, shape (count + 1, n_experts)."""
    return weights_of(experts, [(), *first_subsets(experts, count, seed=seed)])


def wanted_values(experts, every, random):
    """Subsets whose values are the truth."""
    n = len(experts)
    if every:
        return [s for k in range(n + 1) for s in itertools.combinations(experts, k)]
    rng = np.random.default_rng(0)
    found = {(), *((name,) for name in experts), tuple(experts)}
    for k in range(2, n):
        for _ in range(random):
            found.add(tuple(sorted(rng.choice(experts, k, replace=False).tolist())))
    return sorted(found, key=lambda one: (len(one), one))


def weightings(n_experts, count):
    """Unequal weights of sums from 0.1 to 1.2, and as many subsets of such sums, (2 count, n)."""
    rng = np.random.default_rng(5)
    uneven = rng.dirichlet(np.ones(n_experts), count) * rng.uniform(0.1, 1.2, count)[:, None]
    rng, equal = np.random.default_rng(6), np.zeros((count, n_experts))
    for row in equal:
        k = int(rng.integers(1, n_experts + 1))
        row[rng.choice(n_experts, k, replace=False)] = 1 / k
        row *= rng.uniform(0.1, 1.2)
    return np.concatenate([uneven, equal])


def measure(args):
    oracle = Oracle(args.pool, args.max_tokens, args.double)
    merges = Merges(args.out, oracle.experts, tuple(oracle.texts))
    if args.out.exists():
        merges = Merges.load(args.out)
    at = wanted_values(oracle.experts, args.all, args.random)
    designs = [design(oracle.experts, n, seed) for n in args.designs for seed in SEEDS]
    slopes_at = np.concatenate([*designs, weights_of(oracle.experts, at if args.slopes else [])])
    loose = weightings(len(oracle.experts), args.free)
    values_at = np.concatenate([slopes_at, weights_of(oracle.experts, at), loose])
    begun = time.monotonic()
    for kind, rows in (("slopes", slopes_at), ("losses", values_at)):
        one = oracle.slopes if kind == "slopes" else oracle.loss
        known = getattr(merges, kind)
        for row in map(tuple, rows.tolist()):
            if row not in known:
                known[row] = one(row)
            if time.monotonic() - begun > _KEPT_EVERY:
                merges.save()
                begun = time.monotonic()
        print(f"{args.out}: {len(known)} {kind}", flush=True)
    merges.save()


def judge(args):
    merges, gram = Merges.load(args.merges), None
    if args.geometry:
        (found,) = load_grams(args.geometry)
        order = [found.experts.index(name) for name in merges.experts]
        gram = found.matrix[np.ix_(order, order)]
    truth = Truth(merges, gram)
    domains = dict(enumerate(merges.domains)) if args.domains else {}
    for setting in args.design:
        count, _, kind = setting.partition(":")
        designs = [design(merges.experts, int(count), seed) for seed in range(args.seeds)]
        held = []
        for domain, name in {None: "macro", **domains}.items():
            scores = [truth.score(one, domain, kind == "slopes") for one in designs]
            held.append(np.mean([score.held for score in scores]))
            line(f"{setting} {name}", scores)
        if domains:
            fair = np.mean(np.abs(np.array(held) - 0.9) <= 0.05)
            print(f"  domains hold {min(held[1:]):.2f} to {max(held[1:]):.2f}, fair {fair:.2f}")


def rounds(args):
    """Of pools of some experts, drawn anew for each seed."""
    merges, oracle = Merges.load(args.merges), None

    def slopes_of(weights):
        nonlocal oracle
        if weights not in merges.slopes:
            oracle = oracle or Oracle(args.pool, args.max_tokens)
            merges.slopes[weights] = oracle.slopes(weights)
        return merges.slopes[weights]

    kinds = [("values", False, "values"), ("few", None, args.later), ("all", True, "values")]
    for name, gradients, later in kinds:
        found = []
        for seed in range(args.seeds):
            drawn = np.random.default_rng(seed).permutation(list(merges.experts))
            some = sorted(drawn[: args.experts].tolist()) if args.experts else ()
            found.append(
                in_rounds(Pool(args.pool, merges, slopes_of, some), gradients, later, seed)
            )
        passes, n, error, regret = np.array(found).T
        print(
            f"{name:8} passes {passes.mean():5.1f} ({passes.max():.0f})  merges {n.mean():5.1f}"
            f"  error {np.median(error) * 1e3:6.2f}  regret {regret.mean() * 1e3:6.3f}"
            f" ({regret.max() * 1e3:.3f}) thousandths",
            flush=True,
        )
    if oracle and args.keep:
        merges.save()


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=tool.__doc__, formatter_class=form)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("measure")
    verb.add_argument("pool", type=Path, help="its pool.yml, of one size")
    verb.add_argument("out", type=Path)
    verb.add_argument("--all", action="store_true", help="values of all subsets")
    verb.add_argument("--random", type=int, default=0, help="values of so many of each k")
    verb.add_argument("--free", type=int, default=0, help="weights of other sums, twice so many")
    verb.add_argument("--designs", type=int, action="append", default=[], help="merges of each")
    verb.add_argument("--slopes", action="store_true", help="at all those subsets, too")
    verb.add_argument("--max-tokens", type=int, help="as the sweep was measured")
    verb.add_argument("--double", action="store_true", help="in float64")
    verb = verbs.add_parser("judge")
    verb.add_argument("merges", type=Path)
    verb.add_argument("--design", action="append", default=[], help="20:slopes, 60:values, ...")
    verb.add_argument("--domains", action="store_true", help="each by itself, too")
    verb.add_argument("--seeds", type=int, default=len(SEEDS))
    verb.add_argument("--geometry", type=Path, help="the experts', by `mergeplan similarity`")
    verb = verbs.add_parser("rounds")
    verb.add_argument("pool", type=Path, help="of the merges")
    verb.add_argument("merges", type=Path, help="with the values of all subsets")
    verb.add_argument("--experts", type=int, help="of pools of so many of them")
    verb.add_argument("--seeds", type=int, default=len(SEEDS))
    verb.add_argument("--later", choices=LATER, default="values", help="what few's later rounds do")
    verb.add_argument("--max-tokens", type=int, help="as they were measured")
    verb.add_argument("--keep", action="store_true", help="slopes that were not in the file")
    args = parser.parse_args()
    {"measure": measure, "judge": judge, "rounds": rounds}[args.verb](args)


if __name__ == "__main__":
    main()
