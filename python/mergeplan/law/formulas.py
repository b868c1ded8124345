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
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from mergeplan.system.ranges import Magnitude, Number, Positive

# The plain law, and the one for curves that turn up again.
FORMS = ("hyperbolic", "interference")


class SizeLaw(ABC):
    """E[L | k] for one base size, whatever its form.

    Attributes:
        can_rise: Whether the form can turn up again as k grows.
    """

    floor: Magnitude
    tail: Magnitude
    offset: Magnitude
    can_rise: ClassVar[bool]

    @abstractmethod
    def predict(self, k: float) -> float:
        """Expected loss, in nats, of a merge of k experts drawn at random."""

    @abstractmethod
    def solve(self, target_loss: float) -> float | None:
        """The k, not rounded, at which the expected loss is `target_loss`; `None` if it never is,
        and for a form that can rise."""

    @abstractmethod
    def near_floor(self, epsilon: float) -> int | None:
        """Smallest k whose loss is within `epsilon` nats of the floor (App. J.1); `None` for a form
        that can leave the floor again."""

    @abstractmethod
    def lowest(self, pool_size: int) -> float:
        """The lowest expected loss, in nats, of any number of a pool's experts."""

    def remark(self) -> str | None:
        """What the coefficients alone do not tell, for people."""
        return None

    def gain(self, k: float) -> float:
        """What the next expert takes off: L(k) - L(k + 1), in nats."""
        return self.predict(k) - self.predict(k + 1)

    def fraction(self, k: float, pool_size: int) -> float:
        """Share of the improvement from one expert to the best of the pool that k reaches (4.4).

        >>> round(HyperbolicLaw(floor=0.5, tail=1.0, offset=0.0).fraction(5, 9), 3)
        0.9
        """
        whole = self.predict(1) - self.lowest(pool_size)
        return (self.predict(1) - self.predict(k)) / whole if whole > 0 else 1.0

    def reaching(self, fraction: float, pool_size: int) -> int:
        """Smallest k that reaches this share of the improvement: k80 and k90 of the paper."""
        enough = fraction - 1e-9
        reach = (k for k in range(1, pool_size + 1) if self.fraction(k, pool_size) >= enough)
        return next(reach, pool_size)


@dataclass(frozen=True)
class HyperbolicLaw(SizeLaw):
    """E[L | k] = Linf + A / (k + b): Eq. 1 at fixed N.

    Files give the coefficients of both forms; here those of the interference are none.
    """

    floor: Magnitude
    tail: Magnitude
    offset: Magnitude
    interference: float = field(default=0.0, init=False)
    saturation: float = field(default=1.0, init=False)
    can_rise: ClassVar[bool] = False

    def predict(self, k: float) -> float:
        """Expected loss, in nats, of a merge of k experts drawn at random.

        >>> HyperbolicLaw(floor=0.5, tail=1.0, offset=1.0).predict(4)
        0.7
        """
        return self.floor + self.tail / (k + self.offset)

    def solve(self, target_loss: float) -> float | None:
        """See `SizeLaw.solve`.

        >>> HyperbolicLaw(floor=0.5, tail=1.0, offset=1.0).solve(0.75)
        3.0
        """
        if target_loss <= self.floor or self.tail == 0:
            return None
        return self.tail / (target_loss - self.floor) - self.offset

    def near_floor(self, epsilon: float) -> int:
        """See `SizeLaw.near_floor`.

        >>> HyperbolicLaw(floor=0.5, tail=0.074, offset=0.0).near_floor(0.01)
        8
        """
        needed = self.tail / epsilon - self.offset
        return max(1, math.ceil(min(needed, 1e18) - 1e-9))

    def lowest(self, pool_size: int) -> float:
        return self.predict(pool_size)


@dataclass(frozen=True)
class InterferenceLaw(SizeLaw):
    """E[L | k] = Linf + A / (k + b) + D·k / (k + q): the paper's bounded extension for curves that
    turn up again (J.3); the loss of ever more experts approaches `floor + interference`.
    """

    floor: Magnitude
    tail: Magnitude
    offset: Magnitude
    interference: Positive
    saturation: Positive
    can_rise: ClassVar[bool] = True

    def predict(self, k: float) -> float:
        """Expected loss, in nats, of a merge of k experts drawn at random.

        >>> InterferenceLaw(0.5, 1.0, 1.0, interference=0.5, saturation=4.0).predict(4)
        0.95
        """
        up = self.interference * k / (k + self.saturation)
        return self.floor + self.tail / (k + self.offset) + up

    def solve(self, target_loss: float) -> None:
        return None

    def near_floor(self, epsilon: float) -> None:
        return None

    def lowest(self, pool_size: int) -> float:
        return min(map(self.predict, range(1, pool_size + 1)))

    def remark(self) -> str:
        far = self.floor + self.interference
        term = f"{self.interference:.5f}·k/(k + {self.saturation:.4g})"
        return f"and {term}: ever more experts approach {far:.5f}"


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of either form, as files hold them."""

    floor: Magnitude
    tail: Magnitude
    offset: Number
    interference: Magnitude = 0.0
    saturation: Positive = 1.0

    def law(self) -> SizeLaw:
        """The law that they belong to: without interference the plain one."""
        if self.interference == 0:
            return HyperbolicLaw(self.floor, self.tail, self.offset)
        return InterferenceLaw(
            self.floor, self.tail, self.offset, self.interference, self.saturation
        )


@dataclass(frozen=True)
class FromCoefficients:
    """In an annotation of `SizeLaw`: how pydantic reads one from a file.

    Attributes:
        lowest: Smallest offset b that it may have.
    """

    lowest: float = 0.0

    def __get_pydantic_core_schema__(self, _: object, handler: Any) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self._law, handler.generate_schema(Coefficients))

    def _law(self, found: Coefficients) -> SizeLaw:
        if found.offset < self.lowest:
            raise ValueError(f"an offset of at least {self.lowest:g}, found {found.offset:g}")
        return found.law()


@dataclass(frozen=True)
class JointLaw:
    """E[L | N, k] = L* + B·N^-β + A0·N^-γ / (k + b), N in billions (Eq. 1)."""

    l_star: Magnitude
    b_size: Magnitude
    beta: Annotated[float, Ge(0), Le(100)]
    a_0: Magnitude
    gamma: Annotated[float, Ge(0), Le(100)]
    offset: Magnitude

    def at(self, n_billion: float) -> HyperbolicLaw:
        """The law at one base size."""
        floor = self.l_star + self.b_size * n_billion**-self.beta
        return HyperbolicLaw(floor, self.a_0 * n_billion**-self.gamma, self.offset)

    def predict(self, k: float, n_billion: float) -> float:
        """Expected loss, in nats.

        >>> round(JointLaw(0.2, 0.1, 0.5, 0.05, 0.0, 0.0).predict(5, 4.0), 6)
        0.26
        """
        return self.at(n_billion).predict(k)


def through_three_points(
    k: tuple[float, float, float], loss: tuple[float, float, float]
) -> HyperbolicLaw | None:
    """The one curve Linf + A / (k + b) through three points, in closed form.

    Returns:
        `None` where there is no such falling curve with k + b > 0.

    >>> law = HyperbolicLaw(0.7137, 0.0783, 0.6875)
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
    return HyperbolicLaw(l1 - tail / (k1 + offset), tail, offset)
