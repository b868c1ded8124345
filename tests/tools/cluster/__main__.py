"""`python -m tests.tools.cluster`."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

import tests.tools.cluster as tool
from tests.support.nodes import why_not
from tests.tools.cluster.losses import lose
from tests.tools.cluster.simulate import examples
from tests.tools.cluster.traffic import measure


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=tool.__doc__, formatter_class=form)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("traffic", "losses"):
        verbs.add_parser(verb).add_argument("folder", type=Path, help="to make, and to remove")
    verbs.add_parser("simulate")
    args = parser.parse_args()
    if args.verb == "simulate":
        print(examples())
        return
    if (reason := why_not()) is not None:
        sys.exit(reason)
    # So that a tool that is stopped cleans up too; its nodes end with it in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        args.folder.mkdir()
    except OSError as error:
        sys.exit(f"cannot make `{args.folder}`: {error.strerror}; name a folder to make")
    try:
        {"traffic": measure, "losses": lose}[args.verb](args.folder.resolve())
    finally:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
