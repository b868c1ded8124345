"""How far slopes scatter by torch's own backward pass, at several numbers of threads.

    python -m tests.tools.slopes.scatter POOL.yml --threads 1 2 4

Every backward pass is run twice at each number, at equal weights. Printed is the largest difference
of a domain's slopes by an expert from the first pass, over the largest slope of that domain.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import load_for
from mergeplan.evaluation.loading import load_tokenizer
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.texts import Texts
from mergeplan.gradients.meter import Meter
from mergeplan.merging.copies import give_weights
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import load_pool
from mergeplan.tuning.groups import Groups
from mergeplan.tuning.recipe import Recipe, choose_method


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--threads", type=int, nargs="*", default=(1, 2, 4))
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--domains", nargs="*", help="default: all")
    args = parser.parse_args()
    pool = load_pool(args.pool)
    (size,) = pool.sizes
    domains = args.domains or list(pool.data)
    options = EvaluationOptions(max_tokens=args.max_tokens, max_length=args.max_length)
    data = {name: pool.data[name] for name in domains}
    texts = Texts.prepare(data, load_tokenizer(size.base), options)
    label, settings = choose_method(pool, None)
    experts, whole = tuple(size.experts.values()), Groups("expert", ("all",), {})
    recipe = Recipe(label, settings, size.base, experts, size.out_dtype, whole)
    config = recipe.config(np.full((len(experts), 1), 1 / len(experts)))
    setup = Setup(options)
    model = load_for(size.base, setup)
    give_weights(Sweep([config], setup.merging(model)), [(0, model)])
    meter, first = Meter(model, texts, Slopes(config, setup.streaming())), None
    for threads in args.threads:
        torch.set_num_threads(threads)
        for time in (1, 2):
            slopes = meter.measure().whole()
            found = np.array([slopes[name] for name in domains])
            first = found if first is None else first
            off = np.abs(found - first) / np.abs(first).max(1, keepdims=True)
            print(f"{threads} threads, pass {time}: {off.max():.1e}", flush=True)


if __name__ == "__main__":
    main()
