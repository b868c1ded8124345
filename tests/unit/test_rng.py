"""Philox in numpy equals the published vectors and the Rust core."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan import _native, rng

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
    assert rng.philox4x32_10(column, tuple(key))[:, 0].tolist() == expected
    assert _native.philox4x32_10(counter, key) == expected


@given(counter=st.lists(WORD, min_size=4, max_size=4), key=st.lists(WORD, min_size=2, max_size=2))
def test_numpy_equals_rust(counter, key):
    column = np.array(counter, np.uint64)[:, None]
    assert rng.philox4x32_10(column, tuple(key))[:, 0].tolist() == _native.philox4x32_10(
        counter, key
    )


def test_words_follow_the_documented_order():
    words = rng.words(seed=7, stream_id=0x0123456789ABCDEF, count=9)
    block = _native.philox4x32_10([1, 0, 0x89ABCDEF, 0x01234567], [7, 0])
    assert words[4:8].tolist() == block
    assert len(words) == 9


def test_streams_differ_by_name_and_content():
    content = _native.content_hash(b"\x01\x02\x03\x04", 2)
    other = _native.content_hash(b"\x01\x02\x03\x05", 2)
    ids = {
        _native.stream_id("a", content),
        _native.stream_id("b", content),
        _native.stream_id("a", other),
    }
    assert len(ids) == 3
