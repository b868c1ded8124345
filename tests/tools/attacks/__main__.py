"""Attack merges and what goes with them, and say what came of it.

    python -m tests.tools.attacks --seed 1 --seconds 120

Each tool plays rounds, each with a seed of its own: `--only signals --seed 1 --first 17 --rounds 1`
plays one again. `--share` is what the default tests play. The exit code is 1 where a promise was
broken. Linux, with `strace`; what needs root says so where it is not run.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from tests.tools.attacks import (
    calibrations,
    clusters,
    disks,
    races,
    signals,
    syscalls,
    texts,
    users,
    workfolders,
    writers,
)
from tests.tools.attacks.ground import Ground
from tests.tools.attacks.rounds import Limits

TOOLS = {
    "signals": signals.attack,
    "syscalls": syscalls.attack,
    "races": races.attack,
    "workfolders": workfolders.attack,
    "writers": writers.attack,
    "disks": disks.attack,
    "users": users.attack,
    "texts": texts.attack,
    "calibrations": calibrations.attack,
    "clusters": clusters.attack,
}
# Rounds that the default tests play; the others take torch or Ray, and seconds each.
SHARE = {
    "signals": 5,
    "syscalls": 5,
    "races": 3,
    "workfolders": 6,
    "writers": 2,
    "disks": 2,
    "users": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tools.attacks")
    parser.add_argument("--only", nargs="*", choices=TOOLS, help="tools; all of them by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--rounds", type=int, help="of each tool")
    parser.add_argument("--seconds", type=float, help="for each tool")
    parser.add_argument("--share", action="store_true", help="the rounds of the default tests")
    parser.add_argument("--folder", type=Path, help="where to attack; a disk with room for 1 GB")
    arguments = parser.parse_args()
    if arguments.rounds is None and arguments.seconds is None and not arguments.share:
        parser.error("one of --rounds, --seconds and --share is needed")
    failed = False
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="attacks-") as folder:
        ground = Ground(Path(folder))
        for name in arguments.only or (SHARE if arguments.share else TOOLS):
            rounds = SHARE.get(name, 0) if arguments.share else arguments.rounds
            limits = Limits(arguments.seed, rounds, arguments.seconds, arguments.first)
            tally = TOOLS[name](ground, limits)
            print(tally, flush=True)
            failed = failed or bool(tally.faults)
    # What torch's libraries complain of while they are taken down is nobody's business here.
    sys.stdout.flush()
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main()
