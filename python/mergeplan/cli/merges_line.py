"""How far a calibration is: merges and what they were scored on, of the most that it may take."""

import time

from mergeplan.calibration.limits import Spending
from mergeplan.system.progress import ProgressLine


class MergesLine(ProgressLine):
    """Draws it on stderr, where a person watches.

    Args:
        unit: What a model is scored on, in the plural.
    """

    def __init__(self, *, quiet: bool, unit: str) -> None:
        super().__init__(quiet=quiet)
        self._unit = unit
        self._first: tuple[float, float] | None = None

    def tell(self, done: Spending, most: Spending) -> None:
        """Draw it; the speed is that of this call of the command."""
        now = time.monotonic()
        since, kept = self._first = self._first or (now, done.tokens)
        if self.due():
            self.draw(merges_text(done, most, self._unit, done.tokens - kept, now - since))


def merges_text(
    done: Spending, most: Spending, unit: str, new: float = 0.0, seconds: float = 0.0
) -> str:
    """What is measured of the most that there is, and how long that takes at most.

    Args:
        new: Of what is done, in so many seconds.

    >>> merges_text(Spending(12, 3e4), Spending(48, 12e4), "tokens", 1e4, 5.0)
    ' 25 %  12 of 48 merges at most, 30,000 tokens  2,000/s  45 s left at most'
    """
    share = 100 * done.tokens / most.tokens if most.tokens else 100.0
    speed = new / seconds if seconds else 0.0
    left = (most.tokens - done.tokens) / speed if speed else 0.0
    measured = f"{done.merges:,} of {most.merges:,} merges at most, {done.tokens:,.0f} {unit}"
    return (
        f"{share:3.0f} %  {measured}{f'  {speed:,.0f}/s  {left:,.0f} s left at most' * (speed > 0)}"
    )
