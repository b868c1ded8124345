"""How torch rounds on a CPU, measured against torch itself.

For tensors of dtype D (float32 registers throughout):

| operation | what is rounded to D |
|---|---|
| tensor ∘ tensor, sin(tensor), ... | the result |
| sum, norm, mean, dot, variance | the result alone; they accumulate in float32 or better |
| tensor · number, tensor / number | the result; the number is float32 |
| tensor + number, number − tensor, clamp, comparison | the number, and the result |
| number / tensor | the reciprocal, and then its product with the float32 number |
| float32 tensor of no dimensions · tensor | the former (if it comes first), and the result |
| float32 tensor with dimensions ∘ tensor | nothing: the result is float32 |

Here sums are taken in float64 and rounded once, which differs from torch's float32 sums only where
the sum lies within their error of a boundary between two numbers of D.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rounder = Callable[[Array], Array]


def _bfloat16(values: Array) -> Array:
    bits = np.asarray(values, np.float32).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isnan(values), np.nan, rounded).astype(np.float64)


ROUNDERS: dict[str, Rounder] = {
    "float64": lambda values: values,
    "float32": lambda values: np.asarray(values, np.float32).astype(np.float64),
    "float16": lambda values: np.asarray(values, np.float32).astype(np.float16).astype(np.float64),
    "bfloat16": _bfloat16,
}


def round_to(values: object, precision: str) -> Array:
    """Values rounded to nearest, ties to even. Shape as given."""
    return ROUNDERS[precision](np.asarray(values, np.float64))


@dataclass(frozen=True)
class Rounding:
    """The roundings of a merge whose tensors have dtype `precision`."""

    precision: str

    def step(self, values: object) -> Array:
        """The result of an operation on tensors."""
        return round_to(values, self.precision)

    def register(self, values: object) -> Array:
        """A number that torch holds in float32."""
        return round_to(values, "float64" if self.precision == "float64" else "float32")

    def sum(self, values: Array, axis: int | None = None) -> Array:
        """Sum along an axis, which stays with length one; of everything without one."""
        return self.step(values.sum(axis=axis, keepdims=axis is not None))

    def norm(self, values: Array, axis: int | None = None) -> Array:
        """Euclidean norm along an axis, which stays with length one."""
        return self.step(np.sqrt((values * values).sum(axis=axis, keepdims=axis is not None)))

    def mean(self, values: Array, axis: int) -> Array:
        """Mean along an axis, which goes: a float32 sum and a float32 quotient."""
        total = self.register(values.sum(axis=axis))
        return self.step(self.register(total / values.shape[axis]))

    def over_experts(self, terms: Sequence[Array] | Array) -> Array:
        """Sum in float32, in the order of the experts, rounded once."""
        return self.step(self.running_sum(terms))

    def running_sum(self, terms: Sequence[Array] | Array) -> Array:
        """Sum in float32, in the order of the experts."""
        total = np.zeros_like(terms[0])
        for term in terms:
            total = self.register(total + term)
        return total


def stack_deltas(experts: Sequence[Array], base: Array | None, rounding: Rounding) -> Array:
    """Experts, or what they differ by from a base, flattened. Shape (k, numel)."""
    rows = [np.asarray(expert, np.float64).reshape(-1) for expert in experts]
    if base is None:
        return np.stack(rows)
    return rounding.step(np.stack(rows) - np.asarray(base, np.float64).reshape(-1))
