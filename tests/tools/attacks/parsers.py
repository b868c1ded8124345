"""Fuzz every parser that a file reaches, in this process: only our own errors may come out.

    python -m tests.tools.attacks.parsers --inputs 1000000 --seed 1
    python -m tests.tools.attacks.parsers --seed 1 --only 4711     # one input again, with traceback

Inputs are made from their number and the seed alone. Each has a limit of time and of memory; what
takes longer, or raises anything but a `MergeplanError` that blames its input, is a finding.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mergeplan.errors import InternalError, MergeplanError
from tests.tools.attacks.parser_targets import Target, ground, targets

LIMIT_SECONDS = 3.0
_LIMIT_BYTES = 4 << 30  # of addresses, more than what is mapped at the beginning


class TooLong(BaseException):
    """An input took longer than its limit; nothing catches it."""


@dataclass
class Findings:
    """What came of the inputs.

    Attributes:
        outcomes: Inputs by target and by what came out: `read`, or the class of our error.
        found: By what is the same in them: the first input, and how many there were.
        slowest: Seconds, and which input.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[int]] = field(default_factory=dict)
    slowest: tuple[float, int, str] = (0.0, -1, "")


def fuzz(folder: Path, numbers: Iterable[int], seed: int, *, raising: bool = False) -> Findings:
    """Feed some inputs to the parsers.

    Args:
        folder: Empty, on a fast disk.
        raising: Let a finding through as it is.
    """
    at = ground(folder)
    os.chdir(at)  # configs name their models from here
    every = targets(at)
    weights = [1 / target.cost for target in every]
    findings = Findings()
    for number in numbers:
        chance = Random(f"{seed}:{number}")
        target = chance.choices(every, weights)[0]
        content = target.mutate(chance.choice(target.seeds), chance)
        begun = time.perf_counter()
        try:
            outcome = outcome_of(target, at, content)
        except BaseException as error:
            if raising or isinstance(error, KeyboardInterrupt):
                raise
            findings.found.setdefault(_signature(target, error), []).append(number)
            outcome = "finding"
        spent = time.perf_counter() - begun
        findings.slowest = max(findings.slowest, (spent, number, target.name))
        findings.outcomes[target.name, outcome] += 1
        findings.seconds[target.name] += spent
    return findings


def outcome_of(target: Target, at: Path, content: bytes) -> str:
    """What comes of an input: `read`, or the class of our error. All else that it raises is a
    finding."""
    path = at / target.file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        with _limited():
            target.read(at)
    except MergeplanError as error:
        if isinstance(error, InternalError):
            raise
        if len(error.message) > 1500 or not error.message.isprintable():
            raise AssertionError(f"a message that echoes: {error.message[:300]!r}") from error
        return type(error).__name__
    finally:
        path.unlink()
        if before is not None:
            path.write_bytes(before)
    return "read"


@contextmanager
def _limited() -> Iterator[None]:
    """By the processor's time, which others on this machine do not use up."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _signature(target: Target, error: BaseException) -> str:
    """What is the same in findings of one cause: the error, and where ours is innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}mergeplan{os.sep}" in frame.filename]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"
    return f"{target.name}: {type(error).__name__} at {where}: {str(error)[:100]!r}"


def _limit_memory() -> None:
    """So that what grows without end is a `MemoryError`, and not the end of the machine."""
    with Path("/proc/self/statm").open() as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    most = mapped + _LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    """The long run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", type=int, help="feed this input alone, and let what it raises through"
    )
    given = parser.parse_args()
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=fast) as folder:
        if given.only is not None:
            print(fuzz(Path(folder), range(given.only, given.only + 1), given.seed, raising=True))
            return 0
        _limit_memory()
        begun = time.monotonic()
        numbers = range(given.first, given.first + given.inputs)
        findings = fuzz(Path(folder), numbers, given.seed)
        spent = time.monotonic() - begun
    print(f"{given.inputs} inputs in {spent:.0f} s; the slowest took {findings.slowest}")
    for name, used in findings.seconds.most_common(8):
        print(f"  {used:6.1f} s  {name}")
    for (name, outcome), count in sorted(findings.outcomes.items()):
        print(f"  {name:28} {outcome:20} {count}")
    for signature, numbers_ in findings.found.items():
        print(f"FOUND {signature}: {len(numbers_)} inputs, such as {numbers_[0]}")
    return 1 if findings.found else 0


if __name__ == "__main__":
    sys.exit(main())
