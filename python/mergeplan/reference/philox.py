"""Philox4x32-10 in numpy: the readable twin of `rust/core/src/number/philox.rs`.

Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_HALF = np.uint64(0xFFFF)
_HALF_SHIFT = np.uint64(16)
_LOWER = np.uint64(1 << 63)


def philox4x32_10(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Blocks of four random words.

    Args:
        counter: 32-bit words in 64-bit integers, shape (4, n_blocks).
        key: Two 32-bit words.

    Returns:
        Words, shape (4, n_blocks).
    """
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = (right >> _SHIFT) ^ b ^ np.uint64(k0), right & _LOW
        c, d = (left >> _SHIFT) ^ d ^ np.uint64(k1), left & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([a, b, c, d])


def words(seed: int, stream_id: int, count: int) -> NDArray[np.uint64]:
    """The words of the first `count` elements of a stream.

    Elements stand in rows of 64, and eight rows take 64 blocks, one for each lane: row r of the
    eight takes word r % 4 of its lane's block, the lower half of it for r < 4, else the upper. The
    16 bits found there are the upper half of the element's word; the lower half comes, in the same
    place, from the block whose counter has its 64th bit set.

    Args:
        seed: The generator's key, 64 bits.
        stream_id: Upper half of its counter, 64 bits.

    Returns:
        Shape (count,), each below 2**32.
    """
    key = (seed & 0xFFFFFFFF, seed >> 32)
    n_groups = -(-count // 512)
    block = np.arange(64 * n_groups, dtype=np.uint64)
    id_words = np.full_like(block, stream_id & 0xFFFFFFFF), np.full_like(block, stream_id >> 32)

    def halves(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
        counter = np.stack([number & _LOW, number >> _SHIFT, *id_words])  # (4, n_blocks)
        blocks = philox4x32_10(counter, key).reshape(4, n_groups, 64)
        parts = np.concatenate([blocks & _HALF, blocks >> _HALF_SHIFT])  # (8, n_groups, 64)
        return parts.swapaxes(0, 1).reshape(-1)[:count]

    return (halves(block) << _HALF_SHIFT) | halves(block | _LOWER)
