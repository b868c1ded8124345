"""Two tensors, or two whole models, as vectors: how far apart they are, and at which angle."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergeplan._native import TensorDistance


# Where there are none.
NO_VECTORS: dict[str, float | None] = dict.fromkeys(
    ("relative_l2", "cosine", "norm_difference", "norm_a", "norm_b")
)
# What is not 0 where an element is NaN or infinite on one side only, however near the others are.
UNMATCHED: dict[str, float | None] = dict.fromkeys(("relative_l2", "cosine", "norm_difference"))


@dataclass(frozen=True)
class VectorDistance:
    """Sums in float64 over all elements that are finite on both sides.

    Attributes:
        squared_difference: Of (a - b)².
        squared_a, squared_b: Of a² and of b².
        dot: Of a·b.
    """

    squared_difference: float
    squared_a: float
    squared_b: float
    dot: float

    @property
    def relative_l2(self) -> float:
        """‖a - b‖ / ‖a‖: infinite where only a is all zeros, 0 where both are."""
        if not self.squared_a:
            return math.inf if self.squared_difference else 0.0
        return math.sqrt(self.squared_difference / self.squared_a)

    @property
    def cosine(self) -> float | None:
        """Of the angle between both; `None` where one of them is all zeros, which has none."""
        if not (self.squared_a and self.squared_b):
            return None
        # The last bits of sums may lead over 1.
        return max(-1.0, min(1.0, self.dot / math.sqrt(self.squared_a * self.squared_b)))

    def data(self) -> dict[str, float | None]:
        """Both, and the norms they are made of, as `NO_VECTORS` names them."""
        norms = map(math.sqrt, (self.squared_difference, self.squared_a, self.squared_b))
        return dict(zip(NO_VECTORS, (self.relative_l2, self.cosine, *norms), strict=True))


def vector_distance(distances: Iterable["TensorDistance | None"]) -> VectorDistance | None:
    """The distance of all tensors whose values were compared, taken as one vector.

    Returns:
        `None` where there are none, or no element is finite on both sides.
    """
    # Nothing finite is no vector, while an empty tensor is one, of length 0.
    sums = [one.sums for one in distances if one and one.sums and (one.finite or not one.elements)]
    # The order of tensors is nobody's business: fsum is exact.
    return VectorDistance(*map(math.fsum, zip(*sums, strict=True))) if sums else None
