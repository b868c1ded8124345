"""`python -m tests.tools.tuned`."""

import argparse
from pathlib import Path

import tests.tools.tuned as tool
from tests.tools.tuned.by_k import measure_by_k
from tests.tools.tuned.law import show
from tests.tools.tuned.subsets import best, measure_all


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=tool.__doc__, formatter_class=form)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("all")
    verb.add_argument("pool", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--seconds", type=float, default=1e9)
    verb.add_argument("--table", type=Path, help="measurements.csv of all subsets")
    verb.add_argument("--lowest", type=int, default=8, help="only so many of each k")
    verb = verbs.add_parser("best")
    verb.add_argument("all", type=Path)
    verb.add_argument("pool", type=Path)
    verb.add_argument("--splits", type=int, default=5)
    verb = verbs.add_parser("by-k")
    verb.add_argument("pool", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--by", default="expert")
    verb.add_argument("--total", type=float, help="what weights sum to; default: any")
    verb.add_argument("--split", type=int, default=0)
    verb.add_argument("--seed", type=int, default=0, help="of the circle")
    verb.add_argument("--k", type=int, nargs="*", help="of these only")
    verb.add_argument("--best", action="store_true", help="of each k, too")
    verb.add_argument("--seconds", type=float, default=1e9)
    verb = verbs.add_parser("law")
    verb.add_argument("pool", type=Path)
    verb.add_argument("tuned", type=Path)
    verb.add_argument("--all", type=Path)
    verb.add_argument("--split", type=int, default=0)
    args = parser.parse_args()
    {"all": measure_all, "best": best, "by-k": measure_by_k, "law": show}[args.verb](args)


if __name__ == "__main__":
    main()
