"""Philox4x32-10 in numpy: the readable twin of `rust/core/src/philox.rs`.

Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


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
    """The first `count` words of a stream; word i is word i % 4 of the block with counter i // 4.

    Args:
        seed: The generator's key, 64 bits.
        stream_id: Upper half of its counter, 64 bits.

    Returns:
        Shape (count,), each below 2**32.
    """
    n_blocks = -(-count // 4)
    block = np.arange(n_blocks, dtype=np.uint64)
    counter = np.stack(
        [
            block & _LOW,
            block >> _SHIFT,
            np.full_like(block, stream_id & 0xFFFFFFFF),
            np.full_like(block, stream_id >> 32),
        ]
    )  # (4, n_blocks)
    blocks = philox4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return blocks.T.reshape(-1)[:count]
