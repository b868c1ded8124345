"""Reading 8 bits with scales beside reading bfloat16: the same merge of both.

    pytest tests/bench/bench_fp8.py --benchmark-columns=min,median -s

A base and two experts of Qwen2.5-0.5B's shape are made in the temporary folder, and a twin of each
whose linear layers are 8 bits in blocks of 128 x 128 (`MERGEPLAN_BENCH_DIR` names another place and
keeps them, `MERGEPLAN_BENCH_SHAPE=tiny` makes them small). What is compared is the time of a merge
with two threads, as a process.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeplan.bench.models import SHAPES, make_pool
from mergeplan.bench.processes import mergeplan_command, read_all, run_process
from mergeplan.checkpoints.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from tests.support.merges import config_text

THREADS = 2
SIDE = 128
NAMES = ("base", "e0", "e1")
pytestmark = pytest.mark.timeout(0)


def in_8_bits(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q and scales, all blocks at once; the edges are filled with zeros and cut off again."""
    rows, columns = tensor.shape
    filled = torch.zeros(-(-rows // SIDE) * SIDE, -(-columns // SIDE) * SIDE)
    filled[:rows, :columns] = tensor.float()
    blocks = filled.reshape(filled.shape[0] // SIDE, SIDE, filled.shape[1] // SIDE, SIDE)
    scales = blocks.abs().amax((1, 3)) / 448.0
    values = (blocks / scales[:, None, :, None]).reshape(filled.shape)
    return values[:rows, :columns].contiguous().to(torch.float8_e4m3fn), scales


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """`base`, `e0` and `e1`, and their twins in `fp8`."""
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    for name in make_pool(root, SHAPES[os.environ.get("MERGEPLAN_BENCH_SHAPE", "0.5b")], 2):
        print(f"making {name}")
    for name in NAMES:
        twin = root / "fp8" / name
        if not twin.exists():
            tensors = load_file(root / name / WEIGHTS_FILE)
            for layer in [n for n, t in tensors.items() if "layers" in n and t.ndim == 2]:
                tensors[layer], tensors[f"{layer}_scale_inv"] = in_8_bits(tensors[layer])
            twin.mkdir(parents=True)
            save_file(tensors, twin / WEIGHTS_FILE)
            config = json.loads((root / name / CONFIG_FILE).read_text())
            config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [SIDE] * 2}
            (twin / CONFIG_FILE).write_text(json.dumps(config))
    return root


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
@pytest.mark.parametrize("stored", ["bf16", "fp8"])
def test_reading(benchmark, models, method, stored, tmp_path):
    root, out = models / "fp8" if stored == "fp8" else models, tmp_path / "out"
    parameters = {"weight": 0.5, **({"density": 0.4} if method == "ties" else {})}
    base = None if method == "linear" else root / "base"
    experts = [root / "e0", root / "e1"]
    text = config_text(method, experts, base=base, parameters=parameters)
    (tmp_path / "c.yml").write_text(text)
    inputs = [root / name / WEIGHTS_FILE for name in NAMES if base or name != "base"]
    for path in inputs:
        read_all(path)
    benchmark.pedantic(
        run_process,
        args=(mergeplan_command(tmp_path / "c.yml", out, THREADS),),
        setup=lambda: shutil.rmtree(out, ignore_errors=True),
        rounds=3,
        warmup_rounds=1,
    )
    read, seconds = sum(path.stat().st_size for path in inputs), benchmark.stats.stats.median
    n_values = sum(t.numel() for t in load_file(out / WEIGHTS_FILE).values()) * len(inputs)
    print(f"\n{method}, {stored}: {seconds:.2f} s, {read / seconds / 1e9:.2f} GB/s read,", end=" ")
    print(f"{n_values / seconds / 1e9:.2f} billion values/s")
