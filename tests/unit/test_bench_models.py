"""Synthetic models look like real ones, and a measured run is a whole one."""

import sys

import numpy as np
import pytest
import torch

from mergeplan.bench.models import SHAPES, make_pool, round_bf16
from mergeplan.bench.processes import copy_floor, run_process
from mergeplan.errors import SurroundingsError
from tests.support.checkpoints import load_tensors

TINY = SHAPES["tiny"]


def test_the_large_shape_is_qwen_s():
    assert SHAPES["0.5b"].n_params == 494_032_768


def test_rounding_is_torch_s():
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.standard_normal(10_000), [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40]]
    ).astype(np.float32)
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(round_bf16(values), expected)


def test_models_are_made_once_and_are_the_same_again(tmp_path):
    assert list(make_pool(tmp_path / "p", TINY, 2)) == ["base", "e0", "e1"]
    assert list(make_pool(tmp_path / "p", TINY, 2)) == []
    assert list(make_pool(tmp_path / "p", TINY, 3)) == ["e2"]
    list(make_pool(tmp_path / "q", TINY, 1))
    for name in ("base", "e0"):
        first, again = (tmp_path / pool / name / "model.safetensors" for pool in "pq")
        assert first.read_bytes() == again.read_bytes()


def test_a_model_whose_making_was_cut_short_is_made_again(tmp_path):
    list(make_pool(tmp_path, TINY, 1))
    whole = (tmp_path / "e0" / "model.safetensors").read_bytes()
    (tmp_path / "e0" / "bench.json").write_text('{"recipe": "unfinished"}')
    (tmp_path / "e0" / "model.safetensors").write_bytes(b"")
    assert list(make_pool(tmp_path, TINY, 1)) == ["e0"]
    assert (tmp_path / "e0" / "model.safetensors").read_bytes() == whole


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_text("precious")
    for theirs in ("", "[]", '{"speed": 3}'):
        with pytest.raises(SurroundingsError, match="no model that `bench` made"):
            list(make_pool(tmp_path, TINY, 1))
        assert (tmp_path / "base" / "model.safetensors").read_text() == "precious"
        (tmp_path / "base" / "bench.json").write_text(theirs)


def test_deltas_are_normal_independent_and_scaled_by_tensor(tmp_path):
    list(make_pool(tmp_path, TINY, 2))
    base, *experts = (load_tensors(tmp_path / name) for name in ("base", "e0", "e1"))
    assert {name: list(tensor.shape) for name, tensor in base.items()} == TINY.tensors()
    scales = []
    for name, tensor in base.items():
        if tensor.numel() < 4000:
            continue
        deltas = [(expert[name].double() - tensor.double()).flatten() for expert in experts]
        scales += [float(delta.std()) for delta in deltas]
        both = torch.corrcoef(torch.stack([tensor.double().flatten(), *deltas]))
        assert (both - torch.eye(3)).abs().max() < 0.1
        for delta in deltas:
            kurtosis = float(((delta / delta.std()) ** 4).mean())
            assert kurtosis == pytest.approx(3, abs=0.5)
    assert min(scales) > 4e-4
    assert 1.5 < max(scales) / min(scales) < 5


@pytest.mark.parametrize("length", [0, 1, (1 << 22) + 5])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_copy_is_complete(length, threads, tmp_path):
    inputs = [tmp_path / "a", tmp_path / "b"]
    for path in inputs:
        path.write_bytes(np.random.default_rng(length).bytes(length))
    assert copy_floor(inputs, tmp_path / "out", threads) > 0
    assert (tmp_path / "out").read_bytes() == inputs[1].read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_anonymous_memory_is_seen():
    code = "import time; x = bytearray(200_000_000); time.sleep(0.3)"
    run = run_process([sys.executable, "-c", code])
    assert run.seconds > 0.3
    assert 2e8 < run.anonymous_bytes < 2.6e8
    assert run.resident_bytes > run.anonymous_bytes


def test_a_process_that_fails_says_why():
    with pytest.raises(SurroundingsError, match="a measured process failed: why") as caught:
        run_process([sys.executable, "-c", "import sys; sys.exit('why')"])
    assert "sys.exit" in caught.value.hint
