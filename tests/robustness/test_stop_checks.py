"""Hashing and comparing stop when their caller says so."""

import json
import struct

import pytest

from mergeplan import _native

ELEMENTS = 1 << 28


@pytest.fixture
def long_file(tmp_path):
    """A gigabyte of zeros: a sparse file, some tenths of a second of work on one thread."""
    x = {"dtype": "F32", "shape": [ELEMENTS], "data_offsets": [0, 4 * ELEMENTS]}
    header = json.dumps({"x": x}).encode()
    path = tmp_path / "long.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * ELEMENTS)
    return path


class StopError(Exception):
    pass


def stop(done: int) -> None:
    assert 0 <= done < 4 * ELEMENTS
    raise StopError


def test_an_exception_in_progress_stops_hashing(long_file):
    with pytest.raises(StopError):
        _native.content_hashes(long_file, threads=1, progress=stop)


def test_an_exception_in_progress_stops_comparing(long_file):
    path = json.dumps(str(long_file))
    with pytest.raises(StopError):
        _native.tensor_distances(path, path, ["x"], threads=1, progress=stop)


def test_tensors_that_cannot_be_compared_are_errors_of_the_input(tmp_path, small_models):
    a, b = (json.dumps(str(small_models / name)) for name in ("a", "b"))
    with pytest.raises(FileNotFoundError, match="tensor `nope` is missing"):
        _native.tensor_distances(a, b, ["nope"], threads=1)
    assert _native.tensor_distances(a, b, [], threads=1) == []
