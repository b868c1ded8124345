"""Tuned weights of subsets of each k."""

import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mergeplan.merging.slopes import Slopes
from mergeplan.pool.pool import load_pool
from mergeplan.tuning.folder import TuneFolder, scores_of
from mergeplan.tuning.measuring import Measuring
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.points import Points
from mergeplan.tuning.prepared import prepare
from mergeplan.tuning.search import search
from mergeplan.tuning.tune import _grams
from tests.tools.tuned.memory import cut


def circle(n, seed):
    """Subsets of each k, of which each expert is in as many."""
    order = np.random.default_rng(seed).permutation(n)
    found = {tuple(sorted(np.roll(order, at)[:k])) for k in range(1, n + 1) for at in range(n)}
    return sorted(found, key=lambda some: (len(some), some))


def tuned(pool, some, options):
    """What was found, its macro loss on the reporting half, and that of equal weights."""
    prepared = _prepared(pool, some, options)
    executor = Measuring(prepared, options.setup)
    with TemporaryDirectory() as name:
        points = Points(executor, prepared.texts, TuneFolder(Path(name) / "run", prepared.identity))
        if len(some) == 1 and options.total is not None:
            return None, [_reported(points, prepared.equal)] * 2
        found = search(
            points, prepared.aim, prepared.region, prepared.equal, _grams(prepared, options),
            options.budget,
        )  # fmt: skip
        return found, [_reported(points, w) for w in (found.weights, prepared.equal)]


def _prepared(pool, some, options):
    """`prepare` wants two experts, of which the second is then left out."""
    size = pool.sizes[0]
    names = list(size.experts)
    some = list(some)

    def few(places):
        return replace(
            pool,
            sizes=(replace(size, experts={names[at]: size.experts[names[at]] for at in places}),),
        )

    if len(some) > 1:
        return prepare(few(some), options)
    found = prepare(few([some[0], (some[0] + 1) % len(names)]), options)
    recipe = replace(found.recipe, experts=found.recipe.experts[:1])
    slopes = Slopes(recipe.config(np.ones((1, len(recipe.groups)))), options.setup.streaming())
    return replace(found, pool=few(some), experts=found.experts[:1], recipe=recipe, slopes=slopes)


def _reported(points, weights):
    return scores_of(points.report(weights).reported).macro().loss_nats


def expected(found, n):
    """The best subset of each k by a quadratic about all experts' tuned weights.

    At the weights of a subset that are best by it, the others being zero.
    """
    from itertools import combinations

    centre, groups = found.centre, found.weights.shape[1]
    slope = np.mean([*centre.slopes.values()], 0)
    at, bend = centre.weights.ravel(), found.bend
    # The loss is c + s·(w - at) + (w - at)·H·(w - at) / 2, which is linear in w by s - H·at.
    linear = slope - bend @ at
    chosen = []
    for k in range(1, n):
        value = {}
        for some in combinations(range(n), k):
            rows = np.concatenate([np.arange(e * groups, (e + 1) * groups) for e in some])
            part = np.linalg.lstsq(bend[np.ix_(rows, rows)], -linear[rows], rcond=None)[0]
            value[some] = linear[rows] @ part / 2
        chosen.append(min(value, key=value.get))
    return chosen


def measure_by_k(args):
    pool = load_pool(args.pool)
    n = len(pool.sizes[0].experts)
    options = TuneOptions(by=args.by, total=args.total)
    known = {}
    if args.out.exists():
        rows = map(json.loads, args.out.read_text().splitlines())
        known = {tuple(row["subset"]): row for row in rows}
    begun = time.monotonic()
    with cut(pool, args.split) as texts, args.out.open("a") as file:

        def measured(some, kind):
            found, (value, uniform) = tuned(texts, some, options)
            row = {"subset": [int(x) for x in some], "kind": kind, "tuned": value}
            row |= {"uniform": uniform}
            if found is not None:
                row |= {"sum": float(found.weights.sum(0).mean()), "points": len(found.seen)}
            if len(some) == n and args.best:
                row["expected"] = [[int(x) for x in one] for one in expected(found, n)]
            known[tuple(some)] = row
            file.write(json.dumps(row) + "\n")
            file.flush()

        whole = tuple(range(n))
        wanted = [(whole, "circle"), *((some, "circle") for some in circle(n, args.seed))]
        due = lambda some: not args.k or len(some) in args.k  # noqa: E731
        wanted = [(some, kind) for some, kind in wanted if due(some)]
        for some, kind in wanted:
            if some not in known:
                measured(some, kind)
            if some == whole and args.best:
                more = map(tuple, known[whole]["expected"])
                wanted += [(some, "best") for some in more if due(some)]
            if time.monotonic() - begun > args.seconds:
                break
    print(f"{args.out}: {len(known)} of {len(dict(wanted))}", flush=True)
