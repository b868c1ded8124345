"""Every merge of equal weights: each document's loss, and the best of each k on one half."""

import csv
import time
from collections import defaultdict
from itertools import combinations

import numpy as np

from mergeplan.pool.pool import load_pool
from tests.tools.tuned.memory import InMemory, halves, texts_of


def equal(n, some):
    weights = np.zeros(n)
    weights[list(some)] = 1 / max(len(some), 1)
    return weights


def lowest(table, experts, subsets, count):
    """Places of the base, and of so many subsets of each k that a table of all measures lowest."""
    losses = defaultdict(list)
    with table.open() as file:
        for row in csv.DictReader(file):
            some = [] if not row["subset"] else [experts.index(x) for x in row["subset"].split("+")]
            losses[tuple(sorted(some))].append(float(row["loss_nats"]))
    values = np.array([np.mean(losses.get(some, np.inf)) for some in subsets])
    sizes, found = np.array([len(some) for some in subsets]), {0}
    for k in range(1, len(experts) + 1):
        there = np.flatnonzero(sizes == k)
        found |= set(there[np.argsort(values[there])[:count]].tolist())
    return found


def measure_all(args):
    """Losses of all subsets, (n_subsets, n_documents), one domain behind the other."""
    pool = load_pool(args.pool)
    here, texts = InMemory(pool), texts_of(pool)
    n = len(here.experts)
    subsets = [some for k in range(n + 1) for some in combinations(range(n), k)]
    lines = {name: np.array(one.lines) for name, one in texts.domains.items()}
    nll = np.full((len(subsets), sum(map(len, lines.values()))), np.nan)
    if args.out.exists():
        with np.load(args.out) as file:
            nll, tokens = file["nll"], file["tokens"]
    wanted = set(range(len(subsets)))
    if args.table:
        wanted = lowest(args.table, here.experts, subsets, args.lowest)
    begun = time.monotonic()
    for place in sorted(wanted - set(np.flatnonzero(~np.isnan(nll[:, 0])).tolist())):
        here.give(equal(n, subsets[place]))
        found = texts.score(here.model).domains
        nll[place] = np.concatenate([found[name].nll for name in lines])
        tokens = np.concatenate([found[name].n_tokens for name in lines])
        if time.monotonic() - begun > args.seconds:
            break
    np.savez(
        args.out, nll=nll, tokens=tokens, **{f"lines {name}": one for name, one in lines.items()}
    )
    done = set(np.flatnonzero(~np.isnan(nll[:, 0])).tolist())
    print(f"{args.out}: {len(wanted & done)} of {len(wanted)}", flush=True)


class All:
    """What `measure_all` wrote."""

    def __init__(self, path, n):
        with np.load(path) as file:
            self.nll, self.tokens = file["nll"], file["tokens"]
            self.lines = {k[6:]: file[k] for k in file.files if k.startswith("lines ")}
        self.subsets = [some for k in range(n + 1) for some in combinations(range(n), k)]
        self.k = np.array([len(some) for some in self.subsets])

    def macro(self, half):
        """Of every subset, by documents of some numbers."""
        found, first = [], 0
        for name, lines in self.lines.items():
            places = first + np.flatnonzero(np.isin(lines, half[name]))
            found.append(self.nll[:, places].sum(1) / self.tokens[places].sum())
            first += len(lines)
        return np.mean(found, 0)


def best(args):
    """The best of all subsets on the half to choose by, on the other; and of each k."""
    pool = load_pool(args.pool)
    every = All(args.all, len(pool.sizes[0].experts))
    rows = []
    for split in range(args.splits):
        choosing, reporting = (every.macro(half) for half in halves(pool, split))
        one = np.nanargmin(choosing)
        plain = np.flatnonzero(every.k)[np.nanargmin(choosing[every.k > 0])]
        rows.append([reporting[0], reporting[-1], reporting[plain], reporting[one]])
        print(split, every.subsets[plain], *(f"{x:.4f}" for x in rows[-1]))
    print("base, all, best of k > 0, best:", *(f"{x:.4f}" for x in np.mean(rows, 0)))
