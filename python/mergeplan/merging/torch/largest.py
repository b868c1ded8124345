"""The largest magnitudes of a delta, counted in histograms of their bits; ties by index.

The counts stay on the device until a sweep is over: two transfers for a float32 delta, one for 16
bits, whatever the number of pieces. See `rust/core/src/statistics/magnitude.rs`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mergeplan.merging.torch.host import sent
from mergeplan.merging.torch.sweeps import InputSweep, Piece

BinCounts = NDArray[np.int64]
_HIGH, _LOW = 1 << 15, 1 << 16
# Counters in int32 that a GPU has for one stream after the other while it counts.
_APART = 1 << 18
APART_BYTES = 4 * _APART
# The magnitudes of all streams of a piece. Shape (k, numel).
MagnitudesOf = Callable[[Piece], Tensor]


def table_bytes(n_streams: int, n_wanted: int, has_low_bits: bool) -> int:
    """Device bytes of all counters."""
    low = n_wanted * _LOW if has_low_bits else 0
    return 8 * (n_streams * _HIGH + low) + APART_BYTES


def device_bytes(size: int) -> int:
    """What choosing takes for each element of a stream of so many bytes.

    Magnitudes, numbers of ties in int32, and three masks. Counting takes one stream at a time.
    """
    return size + 4 + 3


@dataclass(frozen=True)
class LargestQuery:
    """The `rank` largest magnitudes of a stream, of its numel."""

    stream: int
    rank: int


@dataclass(frozen=True)
class Threshold:
    """Which elements are the largest: those above `bits`, and the first `ties` that equal it."""

    bits: int
    ties: int


def thresholds(
    sweep: InputSweep,
    streams: MagnitudesOf,
    n_streams: int,
    wanted: Sequence[LargestQuery],
    has_low_bits: bool,
) -> list[Threshold]:
    """Exactly which elements are the largest.

    Args:
        wanted: With ranks of at least 1.
        has_low_bits: Whether magnitudes have 31 bits; else 15.

    Raises:
        NotFiniteError: The inputs are not finite.
    """
    tables = torch.zeros((n_streams, _HIGH), dtype=torch.int64, device=sweep.device)
    for piece in sweep:
        for table, bits in zip(tables, streams(piece), strict=True):
            count(table, bits >> 16 if has_low_bits else bits)
    high = counts_of(sweep, tables)
    found = [_largest(high[want.stream], want.rank) for want in wanted]
    if not has_low_bits:
        return [Threshold(bin_, rest) for bin_, rest in found]
    tables = torch.zeros((len(wanted), _LOW), dtype=torch.int64, device=sweep.device)
    for piece in sweep:
        bits = streams(piece)
        for table, want, (bin_, _) in zip(tables, wanted, found, strict=True):
            own = bits[want.stream]
            count(table, own & 0xFFFF, own >> 16 == bin_)
    low = counts_of(sweep, tables)
    inside = [_largest(counts, rest) for counts, (_, rest) in zip(low, found, strict=True)]
    return [
        Threshold(bin_ << 16 | bits, rest)
        for (bin_, _), (bits, rest) in zip(found, inside, strict=True)
    ]


def count(table: Tensor, bins: Tensor, where: Tensor | None = None) -> None:
    """Count integers, or some of them, without waiting for the device.

    Args:
        table: int64, shape (n_bins,).
        bins: Shape (numel,).
        where: Boolean, shape (numel,).
    """
    dtype = torch.int32 if table.is_cuda else table.dtype
    if where is None:
        ones = torch.ones((), dtype=dtype, device=table.device).expand(bins.shape)
    else:
        ones = where.to(dtype)
    if table.is_cuda:
        count_apart(table, bins.long(), ones, _APART // len(table))
    else:
        table.scatter_add_(0, bins.long(), ones)


def count_apart(table: Tensor, bins: Tensor, ones: Tensor, copies: int) -> None:
    """Count as a GPU does best: neighbours into tables of their own, which are then added up.

    Additions to one counter wait for each other, and half of a fine-tune's deltas may be zero.
    """
    apart = torch.zeros((copies, len(table)), dtype=torch.int32, device=table.device)
    whole = len(bins) // copies * copies
    across = (-1, copies)
    apart.scatter_add_(1, bins[:whole].view(across).t(), ones[:whole].view(across).t())
    apart[0].scatter_add_(0, bins[whole:], ones[whole:])
    table += apart.sum(0)


def counts_of(sweep: InputSweep, tables: Tensor) -> BinCounts:
    """The counters, on the host, once it is known that they count numbers."""
    sweep.numbers(tables[:0])
    counts: BinCounts = tables.cpu().numpy()
    return counts


def _largest(counts: BinCounts, rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest, and how many of its elements belong to these."""
    down = np.cumsum(counts[::-1])  # (bins,): elements in a bin and above, the topmost first
    place = int(np.searchsorted(down, rank))
    above = int(down[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - above


class Largest:
    """Says of piece after piece, from a tensor's start on, which elements are the largest.

    Args:
        thresholds: Of each stream; `None` where no element is.
    """

    def __init__(self, thresholds: Sequence[Threshold | None], device: torch.device) -> None:
        def column(values: list[int], dtype: torch.dtype) -> Tensor:
            return sent(torch.tensor(values, dtype=dtype), device).unsqueeze(1)  # (k, 1)

        beyond = Threshold(0x7FFFFFFF, 0)
        found = [one or beyond for one in thresholds]
        self._bits = column([one.bits for one in found], torch.int32)
        self._ties = column([one.ties for one in found], torch.int64)

    def of(self, bits: Tensor) -> Tensor:
        """The next piece's, by its magnitudes: boolean, of the same shape (k, numel)."""
        equal = bits == self._bits
        numbers = torch.empty_like(equal, dtype=torch.int32)
        # Row by row: of several rows at once a GPU gives each to one of its processors.
        for row, out in zip(equal, numbers, strict=True):
            torch.cumsum(row, 0, dtype=torch.int32, out=out)
        equal &= numbers <= self._ties
        # Not in place: what is queued still reads the old number.
        self._ties = (self._ties - numbers[:, -1:]).clamp(min=0)
        return equal.logical_or_(bits > self._bits)
