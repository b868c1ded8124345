"""Values of floating-point dtypes in memory, and the steps between them.

Dtypes go by safetensors' names; whatever is computed is computed in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Values = np.ndarray[Any, np.dtype[np.float64]]

# Bits of the mantissa, and the exponent of the smallest normal number.
_FORMATS = {"F64": (52, -1022), "F32": (23, -126), "F16": (10, -14), "BF16": (7, -126)}
# What a core keeps near: eight times as many took twice as long.
_PIECE = 1 << 16


@dataclass(frozen=True)
class Side:
    """A tensor in memory, row-major; `dtype` is safetensors' name."""

    raw: Bytes
    dtype: str

    def values(self, begin: int, end: int) -> Values:
        """Some elements, exactly."""
        return widened(self.raw, self.dtype, begin, end)


def is_floating(dtype: str) -> bool:
    """Whether values of a dtype have a distance here."""
    return dtype in _FORMATS


def mantissa_bits(dtype: str) -> int:
    """Bits behind the point."""
    return _FORMATS[dtype][0]


def bits(dtype: str) -> int:
    """Of an element of floating point."""
    return int(dtype[-2:])


def widened(raw: Bytes, dtype: str, begin: int, end: int) -> Values:
    """Elements of a floating-point dtype in float64."""
    size = bits(dtype) // 8
    piece = raw[begin * size : end * size]
    if dtype == "BF16":
        piece, dtype = (piece.view("<u2").astype("<u4") << 16).view(np.uint8), "F32"
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]
    # Of a signalling NaN numpy warns.
    with np.errstate(invalid="ignore"):
        return np.asarray(piece.view(kind).astype(np.float64))


def step(values: Values, dtype: str) -> Values:
    """The distance from a value to the next larger one of a dtype.

    >>> float(step(np.array([1.0]), "BF16")[0])
    0.0078125
    """
    mantissa, smallest = _FORMATS[dtype]
    _, exponents = np.frexp(values)
    exponents = np.where(values == 0, smallest, exponents)
    return np.asarray(np.ldexp(1.0, np.maximum(exponents - 1, smallest) - mantissa))


def rounded(values: Values, dtype: str) -> Values:
    """Values as a dtype has them, far from its largest."""
    one = step(values, dtype)
    return np.asarray(np.rint(values / one) * one)


def values_differ(a: Values, b: Values) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where two are not the same; NaN is NaN, and 0 is -0."""
    return np.asarray((a != b) & ~(np.isnan(a) & np.isnan(b)))


def on_grid(side: Side, n: int, dtype: str) -> bool:
    """Whether all finite values are some of a dtype's."""
    for begin, end in pieces(n):
        values = side.values(begin, end)
        values = values[np.isfinite(values)]
        if not np.array_equal(rounded(values, dtype), values):
            return False
    return True


def grid_of(side: Side, n: int) -> str:
    """The coarsest dtype that has all values."""
    fits = (
        d for d in ("BF16", "F16", "F32") if bits(d) <= bits(side.dtype) and on_grid(side, n, d)
    )
    return next(fits, side.dtype)


def pieces(n: int) -> Iterator[tuple[int, int]]:
    """First and last of so many elements, some at a time."""
    return ((begin, min(begin + _PIECE, n)) for begin in range(0, n, _PIECE))
