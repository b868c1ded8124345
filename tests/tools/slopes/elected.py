r"""Slopes where signs are elected, in plain torch: held, changing, and what they tell of merges.

    python -m tests.tools.slopes.elected POOL/pool.yml differences --density 0.2
    python -m tests.tools.slopes.elected POOL/pool.yml law --lambda 0.5 --normalize --truths 200

`differences` holds slopes by each expert's weight, at equal weights, against differences of the
real merge over a tenth of a weight. `law` fits laws of single subsets to values alone, and to as
many and a third of the merges with slopes, and scores them on a random part of all subsets.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from mergeplan.subset_law.fit import fit_subset_law
from tests.tools.slopes.__main__ import design, wanted_values, weights_of
from tests.tools.slopes.judge import r2_of
from tests.tools.slopes.oracle import Oracle

WIDTH = 0.05  # as in rust/core/src/kernels/slope.rs
POWERS = (1.0, 0.75, 0.5)


class Elected(Oracle):
    """TIES of a pool, all in memory."""

    def __init__(self, pool, given):
        super().__init__(pool, given.max_tokens)
        self.strength, self.normalize = given.strength, given.normalize
        start = 0
        for _, shape in self.shapes:
            some = self.deltas[:, start : start + shape.numel()]
            start += shape.numel()
            kept = max(int(given.density * some.shape[1]), 1)
            least = some.abs().kthvalue(some.shape[1] - kept + 1, dim=1, keepdim=True).values
            some[some.abs() < least] = 0

    def _sides(self, weights):
        """Weighted deltas, the vote's sign, and sum and divisor of what has it or has it not."""
        weighted = torch.tensor(weights, dtype=self.base.dtype)[:, None] * self.deltas
        sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
        sides = []
        for wanted in (sign, -sign):
            has = torch.sign(weighted) == wanted
            divisor = (has * torch.tensor(weights, dtype=self.base.dtype)[:, None]).sum(0)
            divisor = torch.where((divisor == 0) | (not self.normalize), 1.0, divisor)
            sides.append(((weighted * has).sum(0), divisor))
        return weighted, sign, sides

    def _merged(self, weights):
        _, _, ((mixed, divisor), _) = self._sides(weights)
        return self.base + self.strength * mixed / divisor

    def parts(self, weights):
        """Slopes by domain and expert with signs held, what changing ones add, and lambda's."""
        weighted, sign, ((mixed, divisor), (against, other)) = self._sides(weights)
        own = torch.where(torch.sign(self.deltas) == sign, self.deltas, 0)
        held = (own - mixed / divisor) / divisor if self.normalize else own
        held = torch.where(own != 0, held, 0)
        size = weighted.abs().sum(0)
        near = weighted.sum(0).abs() < WIDTH * size
        jump = sign * (mixed / divisor - against / other)
        changed = torch.where(near, jump / (2 * WIDTH * size), 0) * self.deltas
        rows = (held, changed, (mixed / divisor)[None])
        found = [[], [], []]
        for text in self.texts.values():
            merged = self._merged(weights).requires_grad_()
            (gradient,) = torch.autograd.grad(self._loss(merged, *text), merged)
            for some, row in zip(found, rows, strict=True):
                some.append((self.strength * row.double() @ gradient.double()).numpy())
        return [np.array(some) for some in found]


def differences(oracle, _):
    n = len(oracle.experts)
    weights, step = np.full(n, 1 / n), 0.1 / n
    held, changed, _ = oracle.parts(weights)
    moved = [oracle.loss(weights + s * row) for row in np.eye(n) for s in (step, -step)]
    measured = (np.array(moved[::2]) - np.array(moved[1::2])).T / (2 * step)
    for name, slopes in (("held", held), ("changing", held + changed)):
        share = 1 - ((slopes - measured) ** 2).sum() / (measured**2).sum()
        print(f"{name:10} explains {share:.3f} of the differences' squares")


def law(oracle, given):
    n, losses, parts = oracle.experts, {}, {}

    def loss(row):
        if row not in losses:
            losses[row] = oracle.loss(row)
        return losses[row]

    truths = list(map(tuple, weights_of(n, wanted_values(n, True, 0))[1:].tolist()))
    random.Random(0).shuffle(truths)
    settings = [(20, None, POWERS), (60, None, POWERS), (20, 0, (1.0,)), (20, 1, (1.0,))]
    for count, kind, powers in settings:
        scores = []
        for seed in range(given.seeds):
            rows = list(map(tuple, design(n, count, seed).tolist()))
            slopes = None
            if kind is not None:
                for row in rows:
                    if row not in parts and sum(row):
                        parts[row] = oracle.parts(row)
                nothing = np.full(len(n), np.nan)
                # The base elects nothing; the law's form has what `normalize` takes away.
                slopes = np.array(
                    [
                        (parts[row][0] + kind * parts[row][1] + parts[row][2]).mean(0)
                        if sum(row)
                        else nothing
                        for row in rows
                    ]
                )
            values = np.array([loss(row).mean() for row in rows])
            fitted = fit_subset_law(np.array(rows), values, n, slopes=slopes, shrinkages=powers)
            rest = [row for row in truths[: given.truths] if row not in rows]
            truth = np.array([loss(row).mean() for row in rest])
            found = fitted.predict(np.array(rest))
            scores.append((r2_of(found, truth), spearmanr(found, truth)[0]))
        name = {None: "values", 0: "slopes, held", 1: "slopes, changing"}[kind]
        print(count, name, np.median(scores, 0), flush=True)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("pool", type=Path, help="its pool.yml, of one size")
    parser.add_argument("verb", choices=("differences", "law"))
    parser.add_argument("--density", type=float, default=1.0)
    parser.add_argument("--lambda", dest="strength", type=float, default=1.0)
    parser.add_argument("--normalize", action="store_true")
    parser.add_argument("--max-tokens", type=int, default=2000)
    parser.add_argument("--truths", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    {"differences": differences, "law": law}[given.verb](Elected(given.pool, given), given)


if __name__ == "__main__":
    main()
