"""The merging scaling law of arXiv 2509.24244, as formulas. Nothing here fits or decides.

| symbol | meaning |
|---|---|
| k | number of merged experts |
| N | parameters of the base, in billions |
| floor, Linf | loss that many experts approach, in nats: L* + B·N^-β |
| tail, A | size of what more experts can still take off, in nats: A0·N^-γ |
| offset, b | shift of k; more than 1 where the tail is flatter than 1/k at small k |
| D, q | interference: what very many experts add again, and the k at which half of it is there |
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SizeLaw:
    """E[L | k] = Linf + A / (k + b) for one base size (Eq. 1 at fixed N), plus D·k / (k + q).

    The last term is the paper's bounded extension for curves that turn up again (J.3); with it the
    loss of ever more experts approaches `floor + interference`.
    """

    floor: float
    tail: float
    offset: float
    interference: float = 0.0
    saturation: float = 1.0

    def predict(self, k: float) -> float:
        """Expected loss, in nats, of a merge of k experts drawn at random.

        >>> SizeLaw(floor=0.5, tail=1.0, offset=1.0).predict(4)
        0.7
        """
        up = self.interference * k / (k + self.saturation)
        return self.floor + self.tail / (k + self.offset) + up

    def solve(self, target_loss: float) -> float | None:
        """The k, not rounded, at which the expected loss is `target_loss`; `None` if it never is.

        Only for a law without interference, which is monotone.

        >>> SizeLaw(floor=0.5, tail=1.0, offset=1.0).solve(0.7)
        4.0
        """
        if target_loss <= self.floor or self.tail == 0 or self.interference:
            return None
        return self.tail / (target_loss - self.floor) - self.offset

    def gain(self, k: float) -> float:
        """What the next expert takes off: L(k) - L(k + 1), in nats."""
        return self.predict(k) - self.predict(k + 1)

    def near_floor(self, epsilon: float) -> int:
        """Smallest k whose loss is within `epsilon` nats of the floor (App. J.1).

        >>> SizeLaw(floor=0.5, tail=0.074, offset=0.0).near_floor(0.01)
        8
        """
        needed = self.tail / epsilon - self.offset
        return max(1, math.ceil(min(needed, 1e18) - 1e-9))

    def fraction(self, k: float, pool_size: int) -> float:
        """Share of the improvement from one expert to the best of the pool that k reaches (4.4).

        >>> round(SizeLaw(floor=0.5, tail=1.0, offset=0.0).fraction(5, 9), 3)
        0.9
        """
        lowest = self.predict(pool_size)
        if self.interference:
            lowest = min(self.predict(size) for size in range(1, pool_size + 1))
        whole = self.predict(1) - lowest
        return (self.predict(1) - self.predict(k)) / whole if whole > 0 else 1.0

    def reaching(self, fraction: float, pool_size: int) -> int:
        """Smallest k that reaches this share of the improvement: k80 and k90 of the paper."""
        enough = fraction - 1e-9
        reach = (k for k in range(1, pool_size + 1) if self.fraction(k, pool_size) >= enough)
        return next(reach, pool_size)


@dataclass(frozen=True)
class JointLaw:
    """E[L | N, k] = L* + B·N^-β + A0·N^-γ / (k + b), N in billions (Eq. 1)."""

    l_star: float
    b_size: float
    beta: float
    a_0: float
    gamma: float
    offset: float

    def at(self, n_billion: float) -> SizeLaw:
        """The law at one base size."""
        floor = self.l_star + self.b_size * n_billion**-self.beta
        return SizeLaw(floor, self.a_0 * n_billion**-self.gamma, self.offset)

    def predict(self, k: float, n_billion: float) -> float:
        """Expected loss, in nats.

        >>> round(JointLaw(0.2, 0.1, 0.5, 0.05, 0.0, 0.0).predict(5, 4.0), 6)
        0.26
        """
        return self.at(n_billion).predict(k)


def through_three_points(
    k: tuple[float, float, float], loss: tuple[float, float, float]
) -> SizeLaw | None:
    """The one curve Linf + A / (k + b) through three points, in closed form.

    Returns:
        `None` where there is no such falling curve with k + b > 0.

    >>> law = SizeLaw(0.7137, 0.0783, 0.6875)
    >>> found = through_three_points((1, 2, 4), tuple(law.predict(k) for k in (1, 2, 4)))
    >>> abs(found.offset - 0.6875) < 1e-12
    True
    """
    (k1, k2, k3), (l1, l2, l3) = k, loss
    if l2 == l3 or (l1 - l2) * (l2 - l3) <= 0:
        return None
    q = (l1 - l2) / (l2 - l3) * (k3 - k2) / (k2 - k1)
    if q <= 1:
        return None
    offset = (k3 - q * k1) / (q - 1)
    if k1 + offset <= 0:
        return None
    tail = (l1 - l2) * (k1 + offset) * (k2 + offset) / (k2 - k1)
    if tail < 0:
        return None
    return SizeLaw(l1 - tail / (k1 + offset), tail, offset)
