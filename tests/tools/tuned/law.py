"""Floor and tail, fitted to tuned and to equal weights."""

import json

import numpy as np
from scipy.optimize import nnls

from mergeplan.pool.pool import load_pool
from tests.tools.slopes.judge import r2_of
from tests.tools.tuned.memory import halves
from tests.tools.tuned.subsets import All

OFFSETS = np.concatenate([np.linspace(0, 3, 301), np.geomspace(3.05, 1e3, 200)])


def law(k, values):
    """Floor, tail, offset and R² of L = floor + tail / (k + offset), by k as the paper weighs; and
    the R² of a line in k.

    R² counts each k alike. The tail is not negative.
    """
    best = None
    for b in OFFSETS:
        root = np.sqrt(k)
        left = np.stack([np.ones(len(k)), 1 / (k + b)], 1)
        found, miss = nnls(left * root[:, None], values * root)
        if best is None or miss < best[0]:
            best = miss, found, b, left @ found
    _, (floor, tail), b, fitted = best
    line = np.polyval(np.polyfit(k, values, 1, w=np.sqrt(k)), k)
    return floor, tail, b, r2_of(fitted, values), r2_of(line, values)


def show(args):
    pool = load_pool(args.pool)
    n = len(pool.sizes[0].experts)
    rows = [json.loads(line) for line in args.tuned.read_text().splitlines()]
    by_k = {k: [r for r in rows if len(r["subset"]) == k] for k in range(1, n + 1)}
    k = np.array([at for at in by_k if by_k[at]])
    curves = {}
    for name in ("uniform", "tuned"):
        some = [[r[name] for r in by_k[at] if r["kind"] == "circle"] for at in k]
        curves[name] = np.array([np.mean(one) for one in some])
    best = [min(by_k[at], key=lambda r: r["kind"] != "best") for at in k]
    if any(r["kind"] == "best" for r in rows):
        curves["tuned, best"] = np.array([r["tuned"] for r in best])
    if args.all:
        every = All(args.all, n)
        choosing, reporting = (every.macro(half) for half in halves(pool, args.split))
        if not np.isnan(choosing).any():
            curves["uniform, all"] = np.array([reporting[every.k == at].mean() for at in k])
        places = [np.flatnonzero(every.k == at)[np.nanargmin(choosing[every.k == at])] for at in k]
        curves["uniform, best"] = reporting[places]
        print(f"base {reporting[0]:.4f}")
    print(f"{'':22}", *(f"k = {at}  " for at in k), " floor  tail   b      R2     of a line")
    for name, values in curves.items():
        floor, tail, b, r2, line = law(k, values)
        print(
            f"{name:22}", *(f"{x:.4f}" for x in values),
            f" {floor:.4f} {tail:.4f} {b:6.2f} {r2:.4f} {line:.4f}",
        )  # fmt: skip
    sums = {at: np.mean([r.get("sum", 1) for r in by_k[at] if r["kind"] == "circle"]) for at in k}
    print("sums of tuned weights", *(f"{one:.2f}" for one in sums.values()))
