"""Philox4x32-10 on a device: the masks of `number/philox.rs` and `kernels/drop.rs`.

Drawn by one kernel (`philox_fused`) where there is Triton, which is tried out at the start. The
plain form, in torch's integers, is its oracle, and stands in for it: 130 or 260 operations for each
half of a piece. Neither waits for the device.

Tried and dropped: both halves always, in four parts, with the key on the device too: 1,390
operations for a piece of DARE instead of 292, for 6 bytes an element and expert instead of 10.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32
from mergeplan.merging.torch.errors import is_lost, is_short
from mergeplan.merging.torch.host import sent

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF
_HALF = 0xFFFF
# Elements of a row; rows that share blocks; elements that do.
_LANES, _ROWS = 64, 8
_GROUP = _LANES * _ROWS
# Of a counter's second word: leads to the lower halves of the words.
_LOWER = 1 << 31
# The largest limit of an element that has one of its own.
MOST = _LOW
# Parts in which the plain form draws a piece, so that what it needs meanwhile stays little.
_PARTS = 2
# Device bytes that drawing takes for each element of each stream: the mask; and of a part the words
# in int64, and for eight of them four words, four on their way and a product in int64.
BYTES = 1 + -(-(8 + 4 + 4 + 1) // _PARTS)


@dataclass(frozen=True)
class Counters:
    """What words come from, beside the number of an element.

    Attributes:
        key: 32 bits each, the lower ones first.
        table: Ids of the streams and the key, their lower halves, then the upper ones: int64, shape
            (2, k + 1).
    """

    key: tuple[int, int]
    table: Tensor

    @classmethod
    def of(cls, seed: int, ids: Sequence[int], device: torch.device) -> "Counters":
        """Of some streams, on a device.

        Args:
            seed: The generator's key, 64 bits.
            ids: Upper halves of the counters, 64 bits each; from `InputReader.stream_id`.
        """
        low, high = ([half(word) for word in (*ids, seed)] for half in (_low, _high))
        return cls((_low(seed), _high(seed)), sent(torch.tensor([low, high]), device))


# Says whether the words of some elements are below limits. Takes counters, a start and a count;
# int64 limits, of shape (k, 1), up to 2**32, or (k, count), up to `MOST`; and whether any has bits
# among its lower 16. Boolean, shape (k, count).
Draw = Callable[[Counters, int, int, Tensor, bool], Tensor]


def plain_below(
    counters: Counters, start: int, count: int, limits: Tensor, has_low_bits: bool = True
) -> Tensor:
    """A `Draw` in torch's own operations."""
    kept = torch.empty((len(limits), count), dtype=torch.bool, device=limits.device)
    part = max(-(-count // _PARTS), _GROUP)
    for first in range(0, count, part):
        some = slice(first, min(first + part, count))
        words = _words(counters, start + first, some.stop - first, has_low_bits)
        torch.lt(words, limits[:, some] if limits.shape[1] > 1 else limits, out=kept[:, some])
    return kept


def _words(counters: Counters, start: int, count: int, has_low_bits: bool = True) -> Tensor:
    """One for each element; without its lower half where nobody asks. int64, shape (k, count)."""
    table, first = counters.table, start // _GROUP
    groups = -(-(start + count) // _GROUP) - first
    blocks = torch.arange(first * _LANES, (first + groups) * _LANES, device=table.device)
    low, high = blocks & _LOW, blocks >> 32
    shape = (table.shape[1] - 1, groups, _ROWS, _LANES)
    words = torch.empty(shape, dtype=torch.int64, device=table.device)
    upper = _philox(counters, low, high)
    for row in range(_ROWS):
        torch.mul(_half(upper, row), 1 << 16, out=words[:, :, row])
    del upper
    if has_low_bits:
        lower = _philox(counters, low, high | _LOWER)
        for row in range(_ROWS):
            words[:, :, row] += _half(lower, row)
    skip = start - first * _GROUP
    return words.view(len(words), -1)[:, skip : skip + count]


def _philox(counters: Counters, a: Tensor, b: Tensor) -> list[Tensor]:
    """The four words of some blocks; they stand in the lower halves of int64. Shape (k, n) each."""
    c, d = counters.table[:, :-1].unsqueeze(2)
    k0, k1 = counters.key
    for _ in range(10):
        left = (a & _LOW).mul_(_MULTIPLIERS[0])
        right = (c & _LOW).mul_(_MULTIPLIERS[1])
        a, b, c, d = (right >> 32) ^ b ^ k0, right, (left >> 32) ^ d ^ k1, left
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return [a, b, c, d]


def _half(words: Sequence[Tensor], row: int) -> Tensor:
    """The 16 bits of each block that belong to a row. Shape (k, groups, 64)."""
    word = words[row % 4]
    half = (word >> 16 if row >= 4 else word) & _HALF
    return half.view(len(word), -1, _LANES)


def _low(word: int) -> int:
    return word & _LOW


def _high(word: int) -> int:
    return word >> 32


@functools.cache
def find_draw(device: torch.device) -> tuple[Draw, str]:
    """The form that draws on a device, and what is wrong where that is not the fused one."""
    return (plain_below, "") if device.type == "cpu" else try_fused(device)


def try_fused(device: torch.device) -> tuple[Draw, str]:
    """The fused form where it runs and gives the plain one's bits; else that, and what is wrong."""

    def fused(counters: Counters, start: int, count: int, limits: Tensor, _: bool) -> Tensor:
        return philox_fused.below(counters.table, start, count, limits)

    try:
        from mergeplan.merging.torch import philox_fused

        if draws_alike(fused, device):
            return fused, ""
        fault = "its bits are wrong"
    except Exception as error:  # whatever a compiler may raise
        if is_lost(error) or is_short(error):
            raise
        (first, *_) = str(error).strip().splitlines() or [""]
        fault = f"{type(error).__name__}: {first}"
    return plain_below, (
        f"device `{device}`: masks are drawn in many steps, which takes longer: the kernel that"
        f" draws them in one does not run ({fault})"
    )


def draws_alike(draw: Draw, device: torch.device) -> bool:
    """Whether a form gives the plain one's bits: at counters beyond 32 bits, and within groups."""
    counters = Counters.of(0x0123_4567_89AB_CDEF, [5, 0xFEDC_BA98_7654_3210], device)
    shared = torch.tensor([[0x8000_0000], [0x5555_1234]], device=device)
    for start, count in ((0, 3000), ((1 << 38) - 777, 2500), (511, 1)):
        words = _words(counters, start, count)
        # Of one word in three the lower half decides.
        each = torch.where(words % 3 == 0, words, words + 1 - words % 2).clamp_(max=MOST)
        for limits in (shared, each):
            if not torch.equal(draw(counters, start, count, limits, True), words < limits):
                return False
    return True


def limit(probability: float) -> int:
    """A float32 probability as a limit on 32-bit words."""
    return int(float32(probability) * 2.0**32 + 0.5)
