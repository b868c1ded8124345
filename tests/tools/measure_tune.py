"""`tune` beside other ways to weights, on several cuts of a pool's documents into halves.

    python -m tests.tools.measure_tune POOL.yml --splits 5 --select --cma 200 --adam 500

Each line is a mean over the splits of the macro loss on the half that had no part in it, and of
forward passes through the other half (a backward pass counts two) and seconds. The rivals, all of
sums of deltas:

    subset     the best of all subsets of equal weights, on the half to choose by (--subsets)
    select     `calibrate --for select --free-sum`, and then `select --weights free` (--select)
    CMA-ES     of the `cma` package, from equal weights at a step of 0.1, a weight for each expert
    AdaMerging (Yang et al., ICLR 2024): entropy of the predictions, by Adam at 1e-3 from weights of
               0.3, a weight for each expert in each layer and kind, a batch of each domain a step
    likelihood the same, by the tokens' loss instead of the entropy
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import load_for
from mergeplan.evaluation.loading import load_tokenizer
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.texts import Texts
from mergeplan.gradients.backward import Backward
from mergeplan.merging.copies import Copies
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import load_pool
from mergeplan.tuning.groups import Groups
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.recipe import Recipe, choose_method
from mergeplan.tuning.tune import tune


class Bench:
    """A pool with one cut of its documents, and merges of it."""

    def __init__(self, pool, setup, by):
        size = pool.sizes[0]
        label, options = choose_method(pool, None)
        paths = tuple(size.experts.values())
        whole = Recipe(label, options, size.base, paths, size.out_dtype, Groups(by, ("all",), {}))
        self.slopes = Slopes(whole.config(np.ones((len(paths), 1))), setup.merging())
        self.tensors = [job.tensor for job in self.slopes.jobs]
        self.recipe = replace(whole, groups=Groups.find(self.tensors, by))
        tokenizer = load_tokenizer(size.base)
        halves = [
            Texts.prepare(pool.data, tokenizer, replace(setup.evaluation, half=half))
            for half in ("selection", "check")
        ]
        self.choosing, self.reporting = halves
        self.model, self.setup = load_for(size.base, setup), setup
        self.copies = Copies()
        self.passes = 0.0

    def merge(self, weights):
        sweep = Sweep([self.recipe.config(weights)], self.setup.merging(self.model))
        self.copies.give(sweep, [(0, self.model)])

    def loss(self, weights):
        self.merge(weights)
        self.passes += 1
        return self.choosing.score(self.model).macro().loss_nats

    def reported(self, weights):
        self.merge(weights)
        return self.reporting.score(self.model).macro().loss_nats


def best_subset(bench, n):
    best, chosen = np.inf, None
    for k in range(n + 1):
        for some in combinations(range(n), k):
            weights = np.zeros((n, 1))
            weights[list(some)] = 1 / max(k, 1)
            if (found := bench.loss(weights)) < best:
                best, chosen = found, weights
    return chosen


def by_cma(bench, n, evaluations, seed):
    import cma

    options = {"maxfevals": evaluations, "seed": seed + 1, "verbose": -9}
    search = cma.CMAEvolutionStrategy([1 / n] * n, 0.1, options)
    while not search.stop() and search.countevals < evaluations:
        asked = search.ask()
        search.tell(asked, [bench.loss(np.array(one)[:, None]) for one in asked])
    return np.array(search.result.xbest)[:, None]


def by_adam(bench, steps, entropy, seed, rate=1e-3):
    """A batch of each domain in each step."""
    import torch

    from mergeplan.evaluation.scoring import token_nll

    backward = Backward(bench.model, bench.slopes)
    batches = bench.choosing.batches_by_domain(bench.model.device, batch_tokens=2048)
    counts = {n: [len(b.targets) for b in some] for n, some in batches.items()}
    order = np.random.default_rng(seed)
    weights = np.full((bench.slopes.n_experts, len(bench.recipe.groups)), 0.3)
    first, second = np.zeros_like(weights), np.zeros_like(weights)

    def step_of(batch, share):
        def step():
            with torch.enable_grad():
                if entropy:
                    logits = bench.model(input_ids=batch.ids, use_cache=False).logits
                    logs = torch.log_softmax(logits.flatten(0, 1).float(), -1)
                    return -(logs.exp() * logs).sum(-1).mean() * share
                return next(token_nll(bench.model, [batch])).mean() * share

        return step

    total = sum(map(sum, counts.values()))
    for number in range(1, steps + 1):
        bench.merge(weights)
        chosen = {name: int(order.integers(len(some))) for name, some in batches.items()}
        aims = {"all": [step_of(batches[n][i], 1 / len(batches)) for n, i in chosen.items()]}
        found = backward.run(aims, at_once=1)["all"]
        slope = bench.recipe.groups.sums(bench.tensors, found).T
        bench.passes += 3 * sum(counts[n][i] for n, i in chosen.items()) / total
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        scale = np.sqrt(second / (1 - 0.999**number)) + 1e-8
        weights = weights - rate * first / (1 - 0.9**number) / scale
    return weights


def by_select(pool, folder):
    """The YAML that `select` writes, and how many merges were measured for it."""
    size = pool.sizes[0]
    experts = {name: str(path) for name, path in size.experts.items()}
    data = {
        "sizes": [{"base": str(size.base), "experts": experts}],
        "data": {name: str(path) for name, path in pool.data.items()},
        "methods": {"average": {}},
    }
    file, run, out = folder / "pool.yml", folder / "select", folder / "free.yml"
    file.write_text(json.dumps(data))
    half = ("--half", "selection", "-q")
    _run("calibrate", file, "-o", run, "--for", "select", "--free-sum", *half)
    table = run / "measurements.csv"
    _run("select", table, "--pool", file, "--weights", "free", "-o", out, "--anyway")
    return out, len((run / "scores.jsonl").read_text().splitlines())


def _run(*words):
    done = subprocess.run(
        [sys.executable, "-m", "mergeplan", *map(str, words)], capture_output=True, text=True
    )
    if done.returncode not in (0, 4):
        raise RuntimeError(done.stderr)


def rivals(given, pool, setup, split):
    """Name, loss, passes and seconds of each way that is wanted."""
    n = len(pool.sizes[0].experts)
    ways = {
        "subset": (given.subsets, "expert", best_subset, (n,)),
        "CMA-ES": (given.cma, "expert", by_cma, (n, given.cma, split)),
        "AdaMerging": (given.adam, "layer,kind", by_adam, (given.adam, True, split)),
        "likelihood": (given.adam, "layer,kind", by_adam, (given.adam, False, split)),
    }
    for name, (wanted, by, way, more) in ways.items():
        if wanted:
            bench, begun = Bench(pool, setup, by), time.perf_counter()
            weights = way(bench, *more)
            seconds = time.perf_counter() - begun
            yield name, (bench.reported(weights), bench.passes, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cma", type=int, default=0)
    parser.add_argument("--adam", type=int, default=0)
    parser.add_argument("--subsets", action="store_true")
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--by", default="expert layer layer,kind")
    parser.add_argument("--max-length", type=int)
    given = parser.parse_args()
    pool, setup = load_pool(given.pool), Setup(EvaluationOptions(max_length=given.max_length))
    table = defaultdict(list)
    for split in range(given.first, given.first + given.splits):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for domain, path in pool.data.items():
                lines = map(json.loads, path.read_text("utf-8").splitlines())
                cut = [json.dumps({**one, "group": f"{split} {i}"}) for i, one in enumerate(lines)]
                (folder / f"{domain}.jsonl").write_text("\n".join(cut) + "\n")
            cut_pool = replace(pool, data={d: folder / f"{d}.jsonl" for d in pool.data})
            beside, cost = (), (0, 0)
            if given.select:
                begun = time.perf_counter()
                written, passes = by_select(cut_pool, folder)
                beside, cost = (written,), (passes, time.perf_counter() - begun)
            for by in given.by.split():
                options = TuneOptions(by=by, setup=setup, beside=beside)
                done = tune(cut_pool, folder / by, options)
                table[f"tune by {by}"].append((done.value, done.passes, done.seconds))
                print(split, by, table[f"tune by {by}"][-1])
                for one in done.rivals:
                    name, costs = (
                        ("select", cost) if one.name.endswith(".yml") else (one.name, (0, 0))
                    )
                    table[name].append((one.value, *costs))
                    print(f"  over {name} {one.gain:+.4f}, {one.low:+.4f} to {one.high:+.4f}")
            for way, row in rivals(given, cut_pool, setup, split):
                table[way].append(row)
                print(split, way, row, flush=True)
    print(f"\n{'':24} loss     spread   passes  seconds")
    for name, rows in table.items():
        losses, passes, seconds = zip(*rows, strict=True)
        spread = statistics.stdev(losses) if len(set(losses)) > 1 else 0.0
        mean = statistics.mean(losses), spread
        cost = statistics.mean(passes), statistics.mean(seconds)
        print(f"{name:24} {mean[0]:.4f}  {mean[1]:.4f}  {cost[0]:7.1f}  {cost[1]:7.1f}")


if __name__ == "__main__":
    main()
