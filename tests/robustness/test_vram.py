"""A device's memory limit holds, and no piece waits for it, whatever the method and the dtypes.

Without a GPU the bytes of all live tensors stand for what its allocator would hand out.
"""

from contextlib import contextmanager

import pytest
import torch

from mergeplan.config.config import parse_config
from mergeplan.merging.merge import merge, merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.torch import device_runner
from mergeplan.merging.torch.arithmetic import fused_multiply_add
from mergeplan.merging.torch.device import LEAST_BYTES, Device, find_devices
from mergeplan.merging.torch.device_runner import DeviceRunner
from mergeplan.merging.torch.loading import power_of_two
from mergeplan.merging.torch.place import Place
from tests.support.checkpoints import save_checkpoint, weights_of
from tests.support.live_bytes import LiveBytes
from tests.support.merges import config_text
from tests.support.shares import paired, spread
from tests.support.waiting import Waiting

GPU = torch.cuda.is_available()
# A GPU's allocator takes 20 MiB at a time: less than 64 MiB is refused there.
SHAPE = (6007, 1203) if GPU else (1501, 1203)
LIMIT = LEAST_BYTES if GPU else 16 << 20
# Stored, and worked in.
DTYPES = [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
DELTA = {"weight": 0.5, "density": 0.3}
# Method, options of each expert, of all, whether there is a base, and most experts.
METHODS = [
    ("linear", {"weight": 0.4}, {}, False, 6),
    ("task_arithmetic", {"weight": 0.4}, {}, True, 6),
    ("ties", DELTA, {}, True, 6),
    ("breadcrumbs_ties", {**DELTA, "gamma": 0.01}, {"rescale": True}, True, 6),
    ("dare_linear", DELTA, {"rescale": True}, True, 6),
    ("dare_ties", DELTA, {"rescale": False}, True, 6),
    ("della", {**DELTA, "epsilon": 0.1}, {"rescale": True}, True, 6),
    ("slerp", {}, {"t": 0.4}, True, 1),
    ("nuslerp", {"weight": 0.4}, {"nuslerp_row_wise": True}, True, 2),
    ("nuslerp", {"weight": 0.4}, {"nuslerp_row_wise": False}, True, 2),
    ("nuslerp", {"weight": 0.4}, {"nuslerp_flatten": True}, True, 2),
    ("multislerp", {"weight": 0.5}, {}, True, 6),
    ("model_stock", {}, {}, True, 6),
    ("model_stock", {}, {"filter_wise": True}, True, 6),
    ("sce", {}, {"select_topk": 0.3}, True, 6),
    ("karcher", {}, {"max_iter": 2}, False, 6),
    ("nearswap", {}, {"t": 0.001}, True, 1),
    ("arcee_fusion", {}, {}, True, 1),
    ("ramplus_tl", {}, {}, True, 6),
    ("passthrough", {"scale": 0.5}, {}, False, 1),
]


@pytest.fixture(autouse=True, scope="module")
def tried_out():
    """What a process finds out once, and waits for."""
    fused_multiply_add(torch.zeros(1), torch.zeros(1), 1.0)


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """A base and six experts, in float32 and in bfloat16."""
    folder = tmp_path_factory.mktemp("pools")
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(SHAPE, generator=generator) * 0.02
    for number, name in enumerate(("base", *"abcdef")):
        moved = base + 0.004 * number * torch.randn(SHAPE, generator=generator)
        for dtype in (torch.float32, torch.bfloat16):
            save_checkpoint(folder / str(dtype)[6:] / name, {"w": moved.to(dtype)})
    return folder


@pytest.mark.parametrize(("method", "dtypes"), spread(paired(METHODS, DTYPES), 5), ids=str)
def test_the_limit_holds(pools, tmp_path, monkeypatch, method, dtypes):
    name, options, parameters, based, most = method
    stored, working = dtypes
    pool = pools / stored
    # All tensors of a group, and two more, would not fit.
    assert 2 * SHAPE[0] * SHAPE[1] * (most + 2) > LIMIT or most < 6
    text = config_text(
        name,
        [pool / expert for expert in "abcdef"[:most]],
        base=pool / "base" if based else None,
        per_model=[options] * most,
        parameters=parameters,
        dtype=working,
        out_dtype="bfloat16",
    )
    config = parse_config(text)
    merge(config, tmp_path / "core")
    live, waited = [], []
    current = Place.current

    @contextmanager
    def watched(place):
        with LiveBytes() as found, Waiting() as waiting, current(place) as device:
            live.append(found)
            yield device
            waited.extend(waiting.found)

    if not GPU:
        monkeypatch.setattr(Place, "current", watched)
    monkeypatch.setattr(device_runner, "_LEAST_HOST", host := 16 << 20)
    devices = find_devices("cuda:0", LIMIT) if GPU else [Device("cpu", LIMIT)]
    wanted = [MergeRequest(config, tmp_path / "out")]
    report = merge_many(wanted, MergeOptions(), runner=DeviceRunner(devices, least_elements=1))[0]
    assert report.device_bytes > 0
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "core")
    # Four buffers for the way up have three quarters of it, two for the way down the rest.
    buffers = 4 * power_of_two(host * 3 // 16) + 2 * power_of_two(host // 8)
    peak = report.peak_vram_bytes if GPU else sum(one.peak for one in live) - buffers
    assert 0 < peak <= LIMIT
    # Nothing on the way of a piece waits for the device; at the end of a sweep numbers are read.
    assert not waited
