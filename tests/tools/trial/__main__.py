"""Put the planner on trial: `python -m tests.tools.trial [--share] [--only curve] [--out FILE]`.

The whole stays under an hour on two cores, `--share`, which the default tests run, under half a
minute. `--each` scales it. To judge an earlier state, put its `python` folder on PYTHONPATH.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.tools.trial import curve, large, means, sizes, subsets, transfer

# Each part makes its scores, and knows how they read for people and for programs.
PARTS: dict[str, tuple[Callable[..., Any], Callable[[Any], list[str]], Callable[[Any], Any]]] = {
    "curve": (curve.on_trial, curve.report, curve.data),
    "means": (means.on_trial, means.report, means.data),
    "sizes": (sizes.on_trial, sizes.report, sizes.data),
    "subsets": (subsets.on_trial, subsets.report, subsets.data),
    "transfer": (transfer.on_trial, transfer.report, transfer.data),
    "large": (large.on_trial, large.report, large.data),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", action="store_true", help="a few pools of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=12, help="simulated pools of a kind and size")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--out", type=Path, help="JSON of all scores")
    args = parser.parse_args()
    found = {}
    for name, (on_trial, report, data) in PARTS.items():
        if args.only in (None, name):
            begun = time.process_time()
            scores = on_trial(share=args.share, seed=args.seed, each=args.each)
            print(f"# {name}, seed {args.seed}, {time.process_time() - begun:.0f} CPU seconds")
            print("\n".join(report(scores)), flush=True)
            found[name] = data(scores)
    if args.out is not None:
        args.out.write_text(json.dumps({"seed": args.seed, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
