"""What a point with slopes costs over a point without.

    python -m tests.tools.slopes.cost DIR --batches 16 --part plain
    python -m tests.tools.slopes.cost DIR --batches 16 --part slopes

DIR holds `base` and experts `e0`, `e1`, ..., as `mergeplan bench --dir` leaves them. Batches of
random tokens; the merge itself is not counted, which both points have. Two runs, so that neither is
long; `slopes` says what of it are forward passes, sums of gradients and inner products.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import load_for
from mergeplan.evaluation.scoring import Batch, token_nll
from mergeplan.gradients import backward
from mergeplan.merging.slopes import Slopes


def batches(model, count, rows, width):
    torch.manual_seed(0)
    n = rows * (width - 1)
    for _ in range(count):
        ids = torch.randint(0, model.config.vocab_size, (rows, width))
        keep = torch.arange(rows * width).view(rows, width)[:, :-1].flatten()
        yield Batch(ids, width, keep, ids[:, 1:].flatten(), np.zeros(n, np.int64))


class Clock:
    """Seconds of some functions, each counted under a name."""

    def __init__(self):
        self.seconds = {}

    def on(self, owner, name, label):
        plain = getattr(owner, name)

        def counted(*args, **kwargs):
            begun = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begun
                self.seconds[label] = self.seconds.get(label, 0.0) + spent

        setattr(owner, name, counted)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=("plain", "slopes"), required=True)
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    args = parser.parse_args()
    experts = sorted(args.folder.glob("e[0-9]*"))
    model = load_for(args.folder / "base", Setup())
    some, clock = list(batches(model, args.batches, args.rows, args.width)), Clock()
    tokens = args.batches * args.rows * args.width
    if args.part == "plain":
        begun = time.perf_counter()
        with torch.inference_mode():
            for batch in some:
                next(token_nll(model, [batch]))
        print(f"{tokens} tokens: {time.perf_counter() - begun:.2f} s", flush=True)
        return
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(args.folder / "base"),
        "models": [
            {"model": str(one), "parameters": {"weight": 1 / len(experts)}} for one in experts
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": "float32",
    }
    slopes = Slopes(config)
    clock.on(slopes, "products", "products")
    clock.on(backward._Held, "add", "sums")
    aim = [lambda b=b: next(token_nll(model, [b])).sum() / tokens for b in some]
    whole = []
    for step in aim:
        holder = argparse.Namespace(step=step)
        clock.on(holder, "step", "forward")
        whole.append(holder.step)
    begun = time.perf_counter()
    backward.Backward(model, slopes).run({"all": whole}, at_once=1)
    spent = time.perf_counter() - begun
    each = ", ".join(f"{name} {seconds:.2f}" for name, seconds in clock.seconds.items())
    print(f"{tokens} tokens, {len(experts)} experts: {spent:.2f} s: {each}", flush=True)


if __name__ == "__main__":
    main()
