"""The way to a device and back: what overlaps, what waits, and what becomes of memory refused.

Fakes of torch.cuda play what only a GPU does; docs/gpu.md says what was never seen on one.
"""

import threading
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from mergeplan.merging.torch import errors, place
from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.host import HostMemory
from mergeplan.merging.torch.loading import Coming, Input, Moment
from mergeplan.merging.torch.storing import BLOCK, FileStore
from mergeplan.merging.torch.sweeps import NotFiniteError, Pieces

CPU = torch.device("cpu")
GPU = torch.device("cuda:0")
MIB = 1 << 20


class Loader:
    """Notes what is asked for."""

    device = CPU

    def __init__(self):
        self.seen = []

    def start(self, inputs, start, count):
        self.seen.append(("ask", start, *(one.number for one in inputs)))
        queued = Future()
        queued.set_result(Moment(CPU))
        return Coming([torch.full((count,), float(one.number)) for one in inputs], queued)


def pieces_of(loader, keep_bytes=0):
    return Pieces(loader, 10, 3, keep_bytes, print)


def inputs_of(*numbers):
    return [Input(0, 0, number, (0, number), torch.float32) for number in numbers]


def test_the_next_piece_is_on_its_way_while_one_is_used():
    loader = Loader()
    for piece in pieces_of(loader).sweep(inputs_of(0, 1), torch.float32):
        assert [piece[number].tolist()[0] for number in range(2)] == [0.0, 1.0]
        loader.seen.append(("use", piece.start))
    asked = [("ask", start, 0, 1) for start in (0, 3, 6, 9)]
    used = [("use", start) for start in (0, 3, 6, 9)]
    assert loader.seen == [asked[0], asked[1], used[0], asked[2], used[1], asked[3], *used[2:]]


def test_while_kept_pieces_are_used_the_first_that_is_missing_comes():
    loader = Loader()
    sweep = pieces_of(loader, keep_bytes=2 * 3 * 4).sweep(inputs_of(0), torch.float32)
    list(sweep)
    loader.seen.clear()
    for piece in sweep:
        loader.seen.append(("use", piece.start))
    assert loader.seen[:2] == [("ask", 6, 0), ("use", 0)]
    assert [one for one in loader.seen if one[0] == "ask"] == [("ask", 6, 0), ("ask", 9, 0)]


def test_what_comes_for_another_merge_is_not_mixed_up():
    loader = Loader()
    pieces = pieces_of(loader)
    for _ in pieces.sweep(inputs_of(0), torch.float32):
        break
    for piece in pieces.sweep(inputs_of(1, 0), torch.float32):
        assert [piece[number].tolist()[0] for number in range(2)] == [1.0, 0.0]
    pieces.close()


class Files:
    """Takes blocks once it may."""

    def __init__(self):
        self.may = threading.Event()
        self.blocks = {}

    def write(self, output, job, start, from_):
        assert self.may.wait(20)
        self.blocks[start] = np.array(from_)


ALL_FINITE = torch.ones((), dtype=torch.bool)


def store_of(files):
    # Two buffers with room for two blocks of bytes each.
    return FileStore(files, HostMemory(CPU, print), 4 * BLOCK)


def test_a_worker_goes_on_while_a_part_is_written():
    files = Files()
    store = store_of(files)
    values = torch.arange(3 * BLOCK).to(torch.uint8)
    store.begin(0, 0, len(values))
    # Pieces that end within blocks: the rest of one comes before the next.
    store.put(0, values[: BLOCK - 5], ALL_FINITE)
    store.put(BLOCK - 5, values[BLOCK - 5 : BLOCK + 7], ALL_FINITE)
    assert not files.blocks
    files.may.set()
    store.put(BLOCK + 7, values[BLOCK + 7 :], ALL_FINITE)
    store.finish()
    store.close()
    written = np.concatenate([files.blocks[start] for start in sorted(files.blocks)])
    np.testing.assert_array_equal(written, values.numpy())


def test_nothing_is_written_behind_a_part_that_is_not_finite():
    files = Files()
    files.may.set()
    store = store_of(files)
    values = torch.zeros(3 * BLOCK, dtype=torch.uint8)
    store.begin(0, 0, len(values))
    store.put(0, values[: BLOCK + 9], ALL_FINITE)
    store.put(BLOCK + 9, values[BLOCK + 9 : 2 * BLOCK + 9], ~ALL_FINITE)
    store.put(2 * BLOCK + 9, values[2 * BLOCK + 9 :], ALL_FINITE)
    with pytest.raises(NotFiniteError):
        store.finish()
    store.begin(0, 1, 4)
    store.put(0, values[:4], ALL_FINITE)
    store.finish()
    store.close()
    assert sorted(files.blocks) == [0]
    assert len(files.blocks[0]) == 4


SHORT = RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")
LOST = RuntimeError("CUDA error: an illegal memory access was encountered")


def test_what_the_system_does_not_pin_is_pageable(monkeypatch):
    empty = torch.empty

    def refusing(*shape, pin_memory=False, **options):
        if pin_memory:
            raise error
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", refusing)
    notes = []
    error = SHORT
    assert len(HostMemory(GPU, notes.append).empty(5)) == 5
    assert "pins no more memory" in notes[0]
    error = LOST
    with pytest.raises(RuntimeError, match="illegal"):
        HostMemory(GPU, notes.append).empty(5)


def test_memory_that_is_refused_is_no_lost_device():
    assert errors.is_short(SHORT)
    assert errors.is_short(torch.OutOfMemoryError("CUDA out of memory"))
    assert not errors.is_lost(SHORT)
    assert errors.is_lost(LOST)
    assert not errors.is_lost(ZeroDivisionError())


@pytest.mark.parametrize(("own", "while_merging"), [(1.0, 0.25), (0.125, 0.125)])
def test_the_process_gets_its_own_memory_limit_back(monkeypatch, own, while_merging):
    fraction = {"cuda:0": own}
    fakes = {
        "synchronize": lambda _: None,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda _: None,
        "memory_reserved": lambda _: 0,
        "max_memory_reserved": lambda _: 7,
        "get_device_properties": lambda _: type("Facts", (), {"total_memory": 4 << 30}),
        "get_per_process_memory_fraction": fraction.get,
        "set_per_process_memory_fraction": lambda share, name: fraction.update({name: share}),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    with place.held([Device("cuda:0", 1 << 30)]) as peaks:
        assert fraction["cuda:0"] == pytest.approx(while_merging)
    assert fraction["cuda:0"] == own
    assert peaks == [7]


@pytest.mark.parametrize(
    ("mib", "workers"), [(64, 1), (511, 1), (512, 2), (1024, 2), (1536, 3), (80_000, 4)]
)
def test_a_device_has_as_many_workers_as_have_room(mib, workers):
    assert place.workers_of(Device("cuda:0", mib * MIB)) == workers
