"""Steps of a merge on a device, each rounded to one dtype, as `mergeplan.reference.rounding` says.

Every step is an operation of its own: torch rounds its result, and no compiler joins two of them
into one with a single rounding.
"""

import functools
import math
import struct
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def float32(value: float) -> float:
    """A number as float32 holds it."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


class Steps:
    """Arithmetic whose results are rounded to `dtype`: float32, bfloat16 or float16.

    Tensors that are called *rounded* have that dtype; sums have float32.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def number(self, value: float) -> float:
        """A number, rounded to float32 and then to the dtype, as torch has it."""
        rounded: float = torch.tensor(float32(value), dtype=torch.float32).to(self.dtype).tolist()
        return rounded

    def cast(self, values: Tensor) -> Tensor:
        """Rounded values."""
        return values.to(self.dtype)

    def subtract(self, values: Tensor, others: Tensor) -> Tensor:
        """Of two rounded tensors."""
        return values - others

    def add(self, values: Tensor, others: Tensor) -> Tensor:
        """Of two tensors, rounded or float32."""
        return self.cast(values.float() + others.float())

    def scale(self, values: Tensor, factor: float) -> Tensor:
        """Times a float32 number, which need not be rounded. One changes nothing."""
        return values if factor == 1.0 else self.cast(values.float() * factor)

    def multiply(self, values: Tensor, factors: Tensor) -> Tensor:
        """Of two tensors, rounded or float32."""
        return self.cast(values.float() * factors.float())

    def divide(self, values: Tensor, divisor: "float | Tensor") -> Tensor:
        """By a float32 number or tensor, exactly rounded."""
        if not isinstance(divisor, Tensor):
            # A GPU multiplies by the reciprocal of a number that lies on the host.
            divisor = torch.full((), divisor, dtype=torch.float32, device=values.device)
        return self.cast(values.float() / divisor.float())

    def sum(self, tensors: Iterable[Tensor], like: Tensor) -> Tensor:
        """In float32, in their order; not rounded. Zeros like `like` where there are none."""
        total = torch.zeros_like(like, dtype=torch.float32)
        for tensor in tensors:
            total.add_(tensor)
        return total

    def number_sum(self, values: Sequence[float]) -> float:
        """Of float32 numbers, in float32 and in their order; not rounded."""
        return functools.reduce(lambda total, value: float32(total + value), values, 0.0)


def fused_multiply_add(sums: Tensor, values: Tensor, factor: float) -> Tensor:
    """`sums + factor · values` with one rounding, in float32.

    Args:
        sums, values: float32.
        factor: A float32 number.
    """
    if _adds_fused(sums.device):
        return torch.add(sums, values, alpha=factor)
    return exact_multiply_add(sums, values, factor)


def exact_multiply_add(sums: Tensor, values: Tensor, factor: float) -> Tensor:
    """The same, from operations that every device has.

    The product is exact in float64. Where the sum is not, its last bit is made odd, which keeps the
    second rounding from seeing a tie that is none (Boldo and Melquiond 2008).
    """
    product = values.double() * factor
    wide = sums.double()
    total = product + wide
    back = total - product
    error = (product - (total - back)) + (wide - back)
    bits = total.view(torch.int64)
    even = (error != 0) & (bits & 1 == 0)
    toward = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where(even, bits + toward, bits).view(torch.float64).float()


@functools.cache
def _adds_fused(device: torch.device) -> bool:
    """Whether the device's own sum with a factor rounds once, in vectors and at their ends."""
    generator = torch.Generator().manual_seed(0)
    factor = float32(1 / 3)
    for count in (*range(1, 130), 1 << 16):
        sums, values = torch.randn((2, count), generator=generator)
        found = torch.add(sums.to(device), values.to(device), alpha=factor)
        if not torch.equal(found.cpu(), exact_multiply_add(sums, values, factor)):
            return False
    return True


def all_finite(values: Tensor) -> Tensor:
    """Whether none is NaN or infinite, on the device. Shape ()."""
    if values.numel() == 0:
        return torch.ones((), dtype=torch.bool, device=values.device)
    return torch.linalg.vector_norm(values, math.inf) < math.inf


def l1_norm(values: Tensor) -> Tensor:
    """In float64. Shape ()."""
    return values.abs().sum(dtype=torch.float64)


def magnitudes(values: Tensor) -> Tensor:
    """Bits without the sign, as int16 or int32: integers that sort as |value| does."""
    if values.dtype == torch.float32:
        return values.view(torch.int32) & 0x7FFFFFFF
    return values.view(torch.int16) & 0x7FFF
