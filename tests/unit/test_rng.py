"""Philox in numpy equals the published vectors and the Rust core."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan import _native
from mergeplan.reference import philox

WORD = st.integers(0, 2**32 - 1)
# Known answers published with the authors' Random123 library.
VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_published_vectors(counter, key, expected):
    column = np.array(counter, np.uint64)[:, None]
    assert philox.philox4x32_10(column, tuple(key))[:, 0].tolist() == expected
    assert _native.philox4x32_10(counter, key) == expected


@given(counter=st.lists(WORD, min_size=4, max_size=4), key=st.lists(WORD, min_size=2, max_size=2))
def test_numpy_equals_rust(counter, key):
    column = np.array(counter, np.uint64)[:, None]
    assert philox.philox4x32_10(column, tuple(key))[:, 0].tolist() == _native.philox4x32_10(
        counter, key
    )


def test_words_follow_the_documented_order():
    words = philox.words(seed=7, stream_id=0x0123456789ABCDEF, count=2372)
    assert len(words) == 2372

    def block(number, upper):
        return _native.philox4x32_10([number, upper, 0x89ABCDEF, 0x01234567], [7, 0])

    # Element 4 * 512 + 5 * 64 + 3: block 4 * 64 + 3, row 5, so the upper half of word 1.
    upper, lower = (block(259, bit)[1] >> 16 for bit in (0, 1 << 31))
    assert words[2371] == (upper << 16) | lower
    # Element 64 + 9: block 9, row 1, so the lower half of word 1.
    upper, lower = (block(9, bit)[1] & 0xFFFF for bit in (0, 1 << 31))
    assert words[73] == (upper << 16) | lower


def test_words_are_uniform():
    words = philox.words(seed=1, stream_id=2, count=200_000)
    assert len(np.unique(words)) > 199_000
    # The mean of n uniform numbers has a standard error of 1 / sqrt(12 n).
    assert abs((words / 2.0**32).mean() - 0.5) < 4 / np.sqrt(12 * len(words))


def test_streams_differ_by_name_and_fingerprint():
    one = _native.fingerprint(b"\x01\x02\x03\x04")
    other = _native.fingerprint(b"\x01\x02\x03\x05")
    ids = {
        _native.stream_id("a", one),
        _native.stream_id("b", one),
        _native.stream_id("a", other),
    }
    assert len(ids) == 3


def test_a_fingerprint_takes_the_documented_sample_of_a_large_tensor():
    data = bytearray(range(256)) * 8192  # 2 MiB
    whole = _native.fingerprint(bytes(data))

    def changes(index):
        data[index] ^= 1
        changed = _native.fingerprint(bytes(data)) != whole
        data[index] ^= 1
        return changed

    last = len(data) - 1
    assert all(map(changes, (0, 1023, 5 * 16_384, last - 1023, last)))
    assert not any(map(changes, (1024, 16_383, last - 1024)))
