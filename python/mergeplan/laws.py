"""The merging scaling law of arXiv 2509.24244, as formulas. Nothing here fits or decides.

| symbol | meaning |
|---|---|
| k | number of merged experts |
| floor, Linf | loss that many experts approach, in nats |
| tail, A | size of what more experts can still take off, in nats |
| offset, b | shift of k; more than 1 where the tail is flatter than 1/k at small k |
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SizeLaw:
    """E[L | k] = Linf + A / (k + b) for one base size (Eq. 1 at fixed N)."""

    floor: float
    tail: float
    offset: float

    def predict(self, k: float) -> float:
        """Expected loss, in nats, of a merge of k experts drawn at random.

        >>> SizeLaw(floor=0.5, tail=1.0, offset=1.0).predict(4)
        0.7
        """
        return self.floor + self.tail / (k + self.offset)

    def solve(self, target_loss: float) -> float | None:
        """The k, not rounded, at which the expected loss is `target_loss`; `None` if it never is.

        >>> SizeLaw(floor=0.5, tail=1.0, offset=1.0).solve(0.7)
        4.0
        """
        if target_loss <= self.floor or self.tail == 0:
            return None
        return self.tail / (target_loss - self.floor) - self.offset
