"""What `calibrate --for select --tokens where-needed` saves, replayed on documents' losses of every
subset: no model runs.

    python tests/tools/replay_tokens.py measure POOL.yml LOSSES.npz [--half selection]
    python tests/tools/replay_tokens.py LOSSES.npz ... [--seeds 20]

The seed orders the documents and chooses the subsets of the first round. Tokens are those scored
until the rounds stop by themselves, the first round included; regret is the loss on all documents
of the subset that they name, less that of the best of all.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from mergeplan.calibration.curve_rounds import Round, Stop
from mergeplan.calibration.limits import Spending
from mergeplan.calibration.store import partly_scored
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.calibration.subset_rounds import next_subset_round
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.partial import Completed, completed
from mergeplan.evaluation.parts import N_PARTS, parts_of
from mergeplan.evaluation.resampling import Resampling
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from mergeplan.pool.pool import Pool, PoolSize
from mergeplan.pool.subsets import SubsetMerge

Seen = dict[tuple[str, ...], MeasuredMerge]


@dataclass(frozen=True)
class Losses:
    """Of every subset: nll of shape (subsets, documents)."""

    subsets: dict[tuple[str, ...], int]
    nll: np.ndarray
    n_tokens: np.ndarray
    domain: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "Losses":
        file = np.load(path)
        names = [tuple(filter(None, text.split("+"))) for text in file["subset"]]
        places = {subset: number for number, subset in enumerate(names)}
        return cls(places, file["nll"].astype(float), file["n_tokens"], file["domain"])

    @property
    def names(self) -> list[str]:
        return sorted({name for subset in self.subsets for name in subset})

    @property
    def macro(self) -> np.ndarray:
        some = [self.domain == name for name in dict.fromkeys(self.domain)]
        return np.mean([self.nll[:, d].sum(1) / self.n_tokens[d].sum() for d in some], axis=0)

    def parts(self, seed: int) -> np.ndarray:
        """The part of each document, in an order of the seed."""
        rng, found = np.random.default_rng(seed), np.empty(len(self.domain), np.int64)
        for name in dict.fromkeys(self.domain):
            own = np.flatnonzero(self.domain == name)
            found[own] = parts_of(own.tolist(), [f"{n:06}" for n in rng.permutation(len(own))])
        return found

    def measured(self, merge: SubsetMerge, parts: np.ndarray, upto: int) -> MeasuredMerge:
        nll = self.nll[self.subsets[merge.subset]]
        domains = {}
        for name in dict.fromkeys(self.domain):
            own = np.flatnonzero((self.domain == name) & (parts < upto))
            domains[str(name)] = DomainScores(own, self.n_tokens[own], nll[own])
        reached = upto if upto < N_PARTS else None
        return MeasuredMerge(merge, Scores(domains), (0.0, 0.0), parts=reached)


def row_of(one: Completed) -> Measurement:
    """What `calibrate` writes of the mean over domains."""
    merge, mean = one.measured.merge, one.measured.scores.macro()
    about = {"method": merge.method, "n_params": merge.n_params, "subset": merge.subset}
    more = partly_scored(one, MACRO, "")
    return Measurement(0, merge.k, mean.loss_nats, domain=MACRO, seed="0", **about | more)


def replay(losses: Losses, seed: int, *, partly: bool) -> tuple[tuple[str, ...], int, int, int]:
    """The subset that is named, tokens, merges, and rounds."""
    *steps, (last, seen) = rounds(losses, seed, partly=partly)
    named = tuple(last.reason.split(" has ")[0].split("+"))
    return named, sum(one.scores.n_tokens for one in seen.values()), len(seen), len(steps)


def plan_of(losses: Losses, seed: int, *, partly: bool) -> SubsetPlan:
    size = PoolSize(Path("base"), {name: Path(name) for name in losses.names}, 1e6)
    return SubsetPlan(Pool((size,), {}, {"average": {}}), partly=partly, seed=seed)


def rounds(losses: Losses, seed: int, *, partly: bool) -> Iterator[tuple[Round | Stop, Seen]]:
    """Each step, the stop last, with what was measured before it."""
    parts, plan = losses.parts(seed), plan_of(losses, seed, partly=partly)
    seen: Seen = {}
    while True:
        step = step_of(plan, seen)
        yield step, dict(seen)
        if isinstance(step, Stop):
            return
        for merge in step.merges:
            before = seen.get(merge.subset)
            upto = 1 + (before.parts or N_PARTS if before else 0)
            if merge in step.whole or not partly:
                upto = N_PARTS
            seen[merge.subset] = losses.measured(merge, parts, upto)


def step_of(plan: SubsetPlan, seen: Seen) -> Round | Stop:
    every = list(seen.values())
    rows = [row_of(one) for one in completed(every)]
    spent = Spending(len(seen), sum(one.scores.n_tokens for one in every))
    resampling = Resampling.of(every) if every else None
    return next_subset_round(Measurements(tuple(rows), ""), plan, spent, resampling, (), every)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--half", default="all")
    args = parser.parse_args()
    if str(args.files[0]) == "measure":
        measure(*args.files[1:], args.half)
        return
    for path in args.files:
        losses = Losses.read(path)
        macro = losses.macro
        lowest = macro[1:].min()
        found = {}
        for partly in (False, True):
            runs = [replay(losses, seed, partly=partly) for seed in range(args.seeds)]
            regrets = [1000 * (macro[losses.subsets[run[0]]] - lowest) for run in runs]
            found[partly] = runs
            print(
                f"{path.stem}, {'where needed' if partly else 'all'}: tokens"
                f" {np.mean([run[1] for run in runs]):,.0f}, merges"
                f" {np.mean([run[2] for run in runs]):.1f}, rounds"
                f" {np.mean([run[3] for run in runs]):.1f}, regret {np.mean(regrets):.3f}, worst"
                f" {max(regrets):.3f} thousandths",
                flush=True,
            )
        pairs = list(zip(found[True], found[False], strict=True))
        shares = [one[1] / other[1] for one, other in pairs]
        same = sum(one[0] == other[0] for one, other in pairs)
        print(
            f"  share of the tokens: mean {np.mean(shares):.2f}, all runs together"
            f" {sum(one[1] for one, _ in pairs) / sum(other[1] for _, other in pairs):.2f}, worst"
            f" {max(shares):.2f}; the same choice in {same} of {len(pairs)}"
        )


def measure(pool_file: Path, out: Path, half: str) -> None:
    """Losses of every document by the average of every subset, and by the base."""
    from mergeplan.calibration.setup import Setup
    from mergeplan.calibration.worker import Worker
    from mergeplan.evaluation.options import EvaluationOptions
    from mergeplan.pool.pool import load_pool
    from mergeplan.pool.subsets import subset_merge

    pool = load_pool(pool_file)
    names = sorted(pool.sizes[0].experts)
    subsets = [s for k in range(len(names) + 1) for s in combinations(names, k)]
    merges = [subset_merge(pool, 0, "average", subset) for subset in subsets]
    worker = Worker(pool, 0, Setup(EvaluationOptions(half=half), threads=1))
    scores = [one.scores.domains for one in worker.measure(merges, range(len(merges)))]
    nll = [np.concatenate([domain.nll for domain in one.values()]) for one in scores]
    np.savez_compressed(
        out,
        nll=np.array(nll, np.float32),
        n_tokens=np.concatenate([domain.n_tokens for domain in scores[0].values()]),
        domain=np.concatenate([[name] * len(d.lines) for name, d in scores[0].items()]),
        subset=["+".join(subset) for subset in subsets],
    )


if __name__ == "__main__":
    main()
