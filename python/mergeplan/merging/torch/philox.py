"""Philox4x32-10 in torch integers: the masks of `number/philox.rs` and `kernels/drop.rs`.

A word stands in the lower half of an int64, with anything above it: multiplying masks it first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergeplan.merging.torch.arithmetic import float32

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
# Device bytes that drawing takes for each element of each stream: for eight of them four words,
# four on their way and a product in int64, and the mask.
BYTES = 10
# The same for limits of the elements' own: halves and limits of words, and a comparison.
OWN_BYTES = BYTES + 9


class Streams:
    """Random words for one tensor of several experts.

    Args:
        seed: The generator's key, 64 bits.
        ids: Upper halves of the counters, 64 bits each; from `InputReader.stream_id`.
    """

    def __init__(self, seed: int, ids: Sequence[int], device: torch.device) -> None:
        self._key = (seed & _LOW, seed >> 32)
        halves = [[id_ & _LOW for id_ in ids], [id_ >> 32 for id_ in ids]]
        self._ids = torch.tensor(halves, dtype=torch.int64, device=device)  # (2, k)

    def below(self, start: int, count: int, limit: Tensor, has_low_bits: bool) -> Tensor:
        """Whether the words of some elements are below a limit. Boolean, shape (k, count).

        Args:
            start: The first element.
            limit: Up to 2**32, one for each expert: int64, shape (k,).
            has_low_bits: Whether any limit has bits among its lower 16.
        """
        shape, inside = _groups(start, count)
        words = self._words_of(start, shape[0])
        kept = torch.empty((len(limit), *shape), dtype=torch.bool, device=limit.device)
        equal = torch.empty_like(kept) if has_low_bits else None
        upper = (limit >> 16).view(-1, 1, 1)
        for row in range(_ROWS):
            half = _half(words, row)
            torch.lt(half, upper, out=kept[:, :, row])
            if equal is not None:
                torch.eq(half, upper, out=equal[:, :, row])
        del words
        kept = kept.view(len(limit), -1)[:, inside]
        if equal is not None:
            expert, place = equal.view(len(limit), -1)[:, inside].nonzero(as_tuple=True)
            kept[expert, place] = self._lower(expert, place + start) < limit[expert] & _HALF
        return kept

    def below_each(self, start: int, limits: Tensor) -> Tensor:
        """Whether they are below limits of their own.

        Args:
            limits: Up to `MOST`: int64, shape (k, count).
        """
        shape, inside = _groups(start, limits.shape[1])
        words = self._words_of(start, shape[0])
        halves = torch.empty((len(limits), *shape), dtype=torch.int32, device=limits.device)
        for row in range(_ROWS):
            halves[:, :, row] = _half(words, row)
        del words
        half = halves.view(len(limits), -1)[:, inside]
        upper = (limits >> 16).int()
        kept = half < upper
        # One word in 65,536 needs its lower half too.
        expert, place = (half == upper).nonzero(as_tuple=True)
        rest = limits[expert, place] & _HALF
        kept[expert, place] = self._lower(expert, place + start) < rest
        return kept

    def _words_of(self, start: int, groups: int) -> list[Tensor]:
        """The four words of the blocks that serve some groups. Shape (k, groups · 64)."""
        first = start // _GROUP * _LANES
        blocks = torch.arange(first, first + groups * _LANES, device=self._ids.device)
        return self._blocks(blocks & _LOW, blocks >> 32, *self._ids.unsqueeze(2))

    def _lower(self, experts: Tensor, elements: Tensor) -> Tensor:
        """The lower halves of single elements' words. Shape (n,)."""
        row, lane = elements // _LANES, elements % _LANES
        block = row // _ROWS * _LANES + lane
        words = self._blocks(block & _LOW, (block >> 32) | _LOWER, *self._ids[:, experts])
        row = row % _ROWS
        word = torch.stack(words).gather(0, (row % 4).unsqueeze(0)).squeeze(0)
        return word >> (16 * (row // 4)) & _HALF

    def _blocks(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> list[Tensor]:
        k0, k1 = self._key
        for _ in range(10):
            left = (a & _LOW).mul_(_MULTIPLIERS[0])
            right = (c & _LOW).mul_(_MULTIPLIERS[1])
            a, b, c, d = (right >> 32) ^ b ^ k0, right, (left >> 32) ^ d ^ k1, left
            k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
        return [a, b, c, d]


def _groups(start: int, count: int) -> tuple[tuple[int, int, int], slice]:
    """The shape of whole groups around some elements, and where these are among theirs."""
    first = start // _GROUP * _GROUP
    groups = -(-(start + count - first) // _GROUP)
    return (groups, _ROWS, _LANES), slice(start - first, start - first + count)


def _half(words: Sequence[Tensor], row: int) -> Tensor:
    """The 16 bits of each block that belong to a row. Shape (k, groups, 64)."""
    word = words[row % 4]
    half = (word >> 16 if row >= 4 else word) & _HALF
    return half.view(len(word), -1, _LANES)


def limit(probability: float) -> int:
    """A float32 probability as a limit on 32-bit words."""
    return int(float32(probability) * 2.0**32 + 0.5)
