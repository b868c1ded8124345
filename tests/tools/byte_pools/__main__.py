"""`python -m tests.tools.byte_pools`."""

import argparse
import dataclasses
from collections import defaultdict
from pathlib import Path

import tests.tools.byte_pools as tool
from tests.tools.byte_pools.ask import ask, gram_of, search
from tests.tools.byte_pools.collect import collect
from tests.tools.byte_pools.measure import Judge, random_subsets
from tests.tools.byte_pools.train import Recipe, train
from tests.tools.trial.large import Score


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=tool.__doc__, formatter_class=form)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("collect", help="texts of every kind")
    verb.add_argument("out", type=Path)
    verb.add_argument("--folder", type=Path, action="append", default=[])
    verb.add_argument("--no-debian", action="store_true", help="only from the folders")
    verb = verbs.add_parser("train", help="a base and its experts")
    verb.add_argument("texts", type=Path)
    verb.add_argument("out", type=Path)
    for field in dataclasses.fields(Recipe):
        kind = type(field.default)
        verb.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    verb = verbs.add_parser("measure", help="losses of averages of random subsets")
    verb.add_argument("pool", type=Path, help="its pool.yml")
    verb.add_argument("out", type=Path)
    verb.add_argument("--experts", type=int, help="only the first so many")
    verb.add_argument("--documents", type=int, default=4, help="of each kind")
    verb.add_argument("--random", type=int, default=0, help="subsets, of every k alike")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--geometry", type=Path, help="for what the trial asks, and for --search")
    verb.add_argument("--trial", type=int, default=0, help="measure what so many seeds ask for")
    verb.add_argument("--search", action="store_true", help="for the lowest loss")
    args = parser.parse_args()
    if args.verb == "collect":
        collect(args.out, args.folder, debian=not args.no_debian)
    elif args.verb == "train":
        named = {field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)}
        train(args.texts, args.out, Recipe(**named))
    else:
        judge = Judge(args.pool, args.out, experts=args.experts, documents=args.documents)
        for subset in [(), *random_subsets(judge.names, args.random, args.seed)]:
            judge.loss(subset)
        if args.trial:
            ask(judge, args.geometry, range(args.seed, args.seed + args.trial), defaultdict(Score))
        if args.search:
            search(judge, gram_of(args.geometry, judge.names))


if __name__ == "__main__":
    main()
