"""Rounds of an attack: each has a seed of its own, so that one that failed can be run again."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from tests.tools.attacks.judge import Fault

# One round: it says what came of it, and raises `Fault` where a promise was broken.
Round = Callable[[Random], str]


@dataclass
class Tally:
    """What came of the rounds of one tool.

    Attributes:
        outcomes: How often what came of a round.
        faults: Of each round that failed, its number and what was wrong.
    """

    tool: str
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    not_run: str = ""

    @property
    def rounds(self) -> int:
        return sum(self.outcomes.values()) + len(self.faults)

    def __str__(self) -> str:
        if self.not_run:
            return f"{self.tool}: not run: {self.not_run}"
        head = f"{self.tool}: {self.rounds} rounds in {self.seconds:.0f} s,"
        lines = [f"{head} {len(self.faults)} failed"]
        lines += [f"  {count:6} {what}" for what, count in sorted(self.outcomes.items())]
        lines += [f"  round {number}: {what}" for number, what in self.faults]
        return "\n".join(lines)


@dataclass(frozen=True)
class Limits:
    """How many rounds, and which.

    Attributes:
        seconds: After which no further round begins.
        first: The number of the first round.
    """

    seed: int
    rounds: int | None = None
    seconds: float | None = None
    first: int = 0

    def numbers(self) -> Iterator[int]:
        """The numbers of the rounds, as long as there is time."""
        begun = time.monotonic()
        number = self.first
        while self.rounds is None or number < self.first + self.rounds:
            if self.seconds is not None and time.monotonic() - begun >= self.seconds:
                return
            yield number
            number += 1


def run_rounds(tool: str, play: Round, limits: Limits) -> Tally:
    """Play rounds until a limit is met."""
    tally = Tally(tool)
    begun = time.monotonic()
    for number in limits.numbers():
        try:
            tally.outcomes[play(Random(f"{limits.seed}/{tool}/{number}"))] += 1
        except (Fault, TimeoutError) as fault:
            tally.faults.append((number, str(fault)))
    tally.seconds = time.monotonic() - begun
    return tally
