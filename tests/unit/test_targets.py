"""Memory to merge into: what cannot take a merge is refused by name, before a byte is written."""

import mmap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mergeplan
from mergeplan.errors import InputError

ONE, TWO = torch.arange(4096.0), torch.ones(64, 64)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_file({"a": ONE, "b": TWO}, folder / "model.safetensors")
    return mergeplan.Sweep({"merge_method": "passthrough", "models": [{"model": str(folder)}]})


def merged(sweep, **places):
    sweep.merge_into([(0, places)])
    return places


def mapped(access):
    """A tensor over pages of their own."""
    memory = mmap.mmap(-1, ONE.nbytes, prot=access)
    return torch.from_numpy(np.frombuffer(memory, dtype=np.float32))


def overlapping_views():
    whole = torch.zeros(6000)
    return {"a": whole[:4096], "b": whole[-4096:].view(64, 64)}


def freed():
    place = torch.zeros(4096)
    place.untyped_storage().resize_(0)
    return place


def twice():
    place = torch.zeros(4096)
    return {"a": place, "b": place.view(64, 64)}


REFUSED = {
    "one memory twice": (twice, "same memory"),
    "overlapping views": (overlapping_views, "`a` and `b` would be written to the same memory"),
    "elements in one place": (lambda: {"a": torch.zeros(1).expand(4096)}, "several elements"),
    "integers": (lambda: {"a": torch.zeros(4096).int()}, "memory of float32, found int32"),
    "eight bits": (lambda: {"a": torch.zeros(4096, dtype=torch.float8_e5m2)}, "found float8_e5m2"),
    "a sparse tensor": (lambda: {"b": TWO.to_sparse()}, "a dense tensor, found torch.sparse_coo"),
    "no memory": (lambda: {"a": torch.zeros(4096, device="meta")}, "on the meta device"),
    "memory that was freed": (lambda: {"a": freed()}, "storage was freed"),
    "an array": (lambda: {"a": np.zeros(4096)}, "a tensor of torch to write to, found ndarray"),
    "no tensor": (lambda: {"a": None}, "found NoneType"),
    "read-only pages": (lambda: {"a": mapped(mmap.PROT_READ)}, "read-only"),
    "a read-only view out of order": (
        lambda: {"b": mapped(mmap.PROT_READ).view(64, 64).T},
        "read-only",
    ),
}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writ")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_to_is_named(case, sweep):
    make, words = REFUSED[case]
    with pytest.raises(InputError, match=words) as caught:
        merged(sweep, **make())
    assert "tensor" in caught.value.message


def test_a_writable_map_of_an_input_is_no_place_for_an_output(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": ONE}, path)
    before = path.read_bytes()
    sweep = mergeplan.Sweep({"merge_method": "passthrough", "models": [{"model": str(path)}]})
    shared = torch.from_numpy(np.memmap(path, np.float32, "r+", offset=len(before) - ONE.nbytes))
    with pytest.raises(InputError, match="`a`.*a map of an input's file"):
        merged(sweep, a=shared)
    assert path.read_bytes() == before


def test_places_that_interleave_but_share_nothing_are_filled(sweep):
    # Every other row of one memory, and its columns.
    rows, columns = torch.zeros(128, 64), torch.zeros(64, 128)
    for even, odd in ((rows[::2], rows[1::2]), (columns[:, ::2], columns[:, 1::2])):
        a = odd.reshape(-1)
        places = merged(sweep, a=a if a.data_ptr() == odd.data_ptr() else torch.zeros(4096), b=even)
        assert torch.equal(places["b"], TWO)
    both = [torch.zeros(64, 128)[:, n::2] for n in (0, 1)]
    sweep.merge_into([(0, {"b": both[0]}), (0, {"b": both[1]})])
    assert all(torch.equal(one, TWO) for one in both)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floating_dtypes_take_what_a_loaded_file_would_give(dtype, sweep):
    places = merged(
        sweep, a=torch.zeros(4096, dtype=dtype), b=mapped(mmap.PROT_WRITE | 1).view(64, 64)
    )
    assert torch.equal(places["a"], ONE.to(dtype))
    assert torch.equal(places["b"], TWO)


@pytest.mark.parametrize("number", [1, -1, "0", None, True, 10**30])
def test_a_merge_that_is_not_there_is_named(number, sweep):
    for call in (
        lambda: sweep.merge_into([(number, {})]),
        lambda: sweep.shapes(number),
        lambda: list(sweep.stream(number)),
    ):
        with pytest.raises(InputError, match="expected the number of a merge, from 0 to 0, found"):
            call()
