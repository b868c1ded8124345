"""One tensor of two checkpoints: what it is on either side, and how far apart."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mergeplan.display.table import align_columns
from mergeplan.display.text import printable
from mergeplan.inspection.vectors import (
    NO_VECTORS,
    UNMATCHED,
    VectorDistance,
    vector_distance,
)

if TYPE_CHECKING:
    from mergeplan._native import TensorDistance

Status = Literal["equal", "differs", "only in a", "only in b", "shape", "dtype"]
_HEAD = (
    "tensor",
    "status",
    "share",
    "relative L2",
    "cosine",
    "differing",
    "max |d|",
    "max ULP",
    "NaN",
)
_DISTANCE = (
    "elements",
    "differing",
    "ulp_dtype",
    "unmatched",
    "finite",
    "nan_a",
    "nan_b",
    "max_difference",
    "mean_difference",
    "max_ulp",
    "mean_ulp",
)
# Worst first; whoever misses a tensor cannot be loaded.
_ORDER: tuple[Status, ...] = ("only in a", "only in b", "shape", "dtype")
# Steps count what rounding does, and it does no more: so many double a bfloat16. Farther apart are
# other values, or such as are nearly 0, between whose signs lie thousands of millions of steps.
_MOST_ULP = 128


@dataclass(frozen=True)
class Side:
    """A tensor in one of the checkpoints; `dtype` is safetensors' name."""

    dtype: str
    shape: list[int]
    file: str
    n_bytes: int


@dataclass(frozen=True)
class TensorDiff:
    """One tensor of two checkpoints.

    Attributes:
        status: `dtype` where the dtypes differ, whether or not the values could be compared.
        a, b: Where it is; `None` on the side that lacks it.
        distance: `None` where the two cannot be compared.
        share: Of the squared difference of all tensors; `None` where values have none, or none is
            finite on both sides.
    """

    tensor: str
    status: Status
    a: Side | None
    b: Side | None
    distance: "TensorDistance | None" = None
    share: float | None = None

    @property
    def vectors(self) -> VectorDistance | None:
        """Relative L2 and cosine of what is finite on both sides; `None` where nothing is."""
        return vector_distance([self.distance])

    @property
    def rounds(self) -> bool:
        """Whether the dtypes differ, and so do values until they are rounded to the coarser."""
        differ = self.distance is not None and self.distance.differing > 0
        return differ and self.a is not None and self.b is not None and self.a.dtype != self.b.dtype

    @property
    def max_ulp(self) -> int | None:
        """Most steps between values of one dtype, where they tell of rounding: no element is
        farther off than 128, or NaN or infinite on one side only."""
        found = self.distance
        if found is None or found.max_ulp is None or found.unmatched:
            return None
        return found.max_ulp if found.max_ulp <= _MOST_ULP else None

    @property
    def max_difference(self) -> float | None:
        """Largest |a - b| of what is finite on both sides; `None` where nothing is."""
        found = self.distance
        return found.max_difference if found and (found.finite or not found.elements) else None

    @property
    def badness(self) -> tuple[float, ...]:
        """Sorts the worst first."""
        found = self.distance
        if found is None:
            return (_ORDER.index(self.status),)
        if self.status == "equal":
            return (len(_ORDER) + 1,)
        part = found.differing / max(found.elements, 1)
        # What has no share, being no float, stands before what has.
        share = math.inf if self.share is None else self.share
        return (len(_ORDER), -found.unmatched, -share, -part)

    def numbers(self) -> dict[str, Any]:
        """All that was found, by name; `None` is what means nothing here."""
        found = {name: getattr(self.distance, name, None) for name in _DISTANCE}
        if self.max_ulp is None:
            found |= {"max_ulp": None, "mean_ulp": None}
        if self.max_difference is None:
            found |= {"max_difference": None, "mean_difference": None}
        vectors = self.vectors.data() if self.vectors else NO_VECTORS
        if self.distance and self.distance.unmatched:
            vectors = vectors | UNMATCHED
        return {"share": self.share, **vectors, **found}


def diff_rows(tensors: tuple[TensorDiff, ...]) -> list[str]:
    """A table for people.

    Args:
        tensors: In the order of the rows.

    Returns:
        Lines: a head and a row for each tensor; none without tensors.
    """
    if not tensors:
        return []
    return align_columns([_HEAD, *(_row(tensor) for tensor in tensors)], left=2)


def _row(tensor: TensorDiff) -> tuple[str, ...]:
    status: str = tensor.status
    if tensor.a and tensor.b and status == "shape":
        status = f"shape {tensor.a.shape} / {tensor.b.shape}"
    elif tensor.a and tensor.b and status == "dtype":
        status = f"dtype {tensor.a.dtype} / {tensor.b.dtype}"
    found, vectors = tensor.distance, tensor.vectors
    name = printable(tensor.tensor)
    if found is None:
        return (name, status, *["-"] * 7)
    if not found.elements:
        status += ", empty"
    elif found.finite == 0:
        status += ", nothing finite"
    if found.unmatched:
        status += f", {found.unmatched} not finite on one side"
    share = "-" if tensor.share is None else f"{100 * tensor.share:.3g} %"
    distance = cosine = "-"
    if vectors and found.finite:
        distance = l2_text(vectors)
        cosine = "-" if vectors.cosine is None else f"{vectors.cosine:.6f}"
    differing = f"{100 * found.differing / max(found.elements, 1):.3g} %"
    largest = "-" if tensor.max_difference is None else f"{tensor.max_difference:.3g}"
    ulp = f">{_MOST_ULP}" if found.max_ulp is not None and found.max_ulp > _MOST_ULP else "-"
    nan = f"{found.nan_a} / {found.nan_b}" if found.nan_a or found.nan_b else "-"
    if tensor.max_ulp is not None:
        ulp = f"{tensor.max_ulp}"
    return (name, status, share, distance, cosine, differing, largest, ulp, nan)


def l2_text(vectors: VectorDistance) -> str:
    """A relative L2 for people.

    >>> l2_text(VectorDistance(1.0, 4.0, 9.0, 6.0)), l2_text(VectorDistance(1.0, 0.0, 1.0, 0.0))
    ('0.5', 'A is 0')
    """
    return "A is 0" if math.isinf(vectors.relative_l2) else f"{vectors.relative_l2:.3g}"
