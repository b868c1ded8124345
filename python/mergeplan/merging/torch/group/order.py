"""Exact order statistics of a quantity computed from the inputs, without storing or sorting it.

Counted in histograms of keys, integers that sort as the values do: 16 bits of them at a time, so
that a float32 quantity takes two sweeps. See `rust/core/src/execute/group/order.rs`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import all_finite
from mergeplan.merging.torch.largest import APART_BYTES, count, counts_of
from mergeplan.merging.torch.sweeps import InputSweep, LeaveToCoreError, Piece

_BINS = 1 << 16
_HALF = _BINS // 2
# Device bytes that counting takes for each element: keys, and some of their bits, in int32, a
# mask, bins and ones in int64.
BYTES = 3 * 4 + 1 + 2 * 8
# Computes the quantity for a piece, in the working dtype.
Quantity = Callable[[Piece], Tensor]


def counter_bytes(ranks: int) -> int:
    """Device bytes of the counters of so many wanted ranks."""
    return (ranks + 1) * 8 * (_BINS + 2) + APART_BYTES


def sweeps(dtype: torch.dtype) -> int:
    """That the statistics of a quantity take."""
    return 2 if dtype == torch.float32 else 1


@dataclass(frozen=True)
class Statistic:
    """The element of one rank.

    Attributes:
        bits: Of its value, in the quantity's dtype, as a signed integer.
        below: Elements that are smaller.
        equal: Elements that equal it.
    """

    bits: int
    below: int
    equal: int

    def value(self, dtype: torch.dtype) -> float:
        """As a number, given the quantity's dtype."""
        integer = torch.int32 if dtype == torch.float32 else torch.int16
        value: float = torch.tensor(self.bits, dtype=integer).view(dtype).tolist()
        return value


def order_statistics(
    sweep: InputSweep, quantity: Quantity, dtype: torch.dtype, pick: Callable[[int], Sequence[int]]
) -> list[Statistic]:
    """The elements of the ranks that `pick` wants, given how many are not zero; 0 is the smallest.

    Raises:
        LeaveToCoreError: An input or the quantity is not finite.
    """
    has_low_bits = dtype == torch.float32
    # The last two counters are those of elements that are not zero, and of pieces not finite.
    table = torch.zeros(_BINS + 2, dtype=torch.int64, device=sweep.device)
    for piece in sweep:
        values = quantity(piece)
        keys = _keys(values)
        count(table, (keys >> 16 if has_low_bits else keys) + _HALF)
        table[_BINS] += torch.count_nonzero(values)
        table[_BINS + 1] += ~all_finite(values)
    high = counts_of(sweep, table)
    if high[_BINS + 1]:
        raise LeaveToCoreError
    ranks = pick(int(high[_BINS]))
    found = [_bin(high[:_BINS], rank) for rank in ranks]
    if not has_low_bits or not ranks:
        return [
            Statistic(_bits_of(bin_ - _HALF, 0x7FFF), below, int(high[bin_]))
            for bin_, below in found
        ]
    return _refine(sweep, quantity, ranks, found)


def _refine(
    sweep: InputSweep, quantity: Quantity, ranks: Sequence[int], found: Sequence[tuple[int, int]]
) -> list[Statistic]:
    """By the lower 16 bits of the keys in the bins that were found."""
    tables = torch.zeros((len(ranks), _BINS), dtype=torch.int64, device=sweep.device)
    for piece in sweep:
        keys = _keys(quantity(piece))
        for table, (bin_, _) in zip(tables, found, strict=True):
            count(table, keys & 0xFFFF, keys >> 16 == bin_ - _HALF)
    statistics = []
    low = counts_of(sweep, tables)
    for counts, rank, (high, below) in zip(low, ranks, found, strict=True):
        bin_, below_in_bin = _bin(counts, rank - below)
        bits = _bits_of((high - _HALF) << 16 | bin_, 0x7FFFFFFF)
        statistics.append(Statistic(bits, below + below_in_bin, int(counts[bin_])))
    return statistics


def _keys(values: Tensor) -> Tensor:
    """Signed integers that sort as the values do, in int32."""
    if values.dtype == torch.float32:
        bits = values.view(torch.int32)
        return bits ^ (bits >> 31 & 0x7FFFFFFF)
    bits = values.view(torch.int16)
    return (bits ^ (bits >> 15 & 0x7FFF)).int()


def _bits_of(key: int, all_but_sign: int) -> int:
    return key if key >= 0 else key ^ all_but_sign


def _bin(counts: "np.ndarray", rank: int) -> tuple[int, int]:
    """The bin that holds the element of a rank, and how many elements the bins before it hold."""
    up = np.cumsum(counts)  # (bins,): elements in a bin and below
    place = int(np.searchsorted(up, rank, side="right"))
    return place, int(up[place - 1]) if place else 0
