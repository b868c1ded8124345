"""What `inspect` forecasts is what happens."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from mergeplan.config.methods import METHODS
from mergeplan.inspection.speeds import MILLION_ELEMENTS
from tests.support.checkpoints import save_checkpoint
from tests.support.shares import paired, spread

OPTIONS = {
    "density": 0.4,
    "gamma": 0.01,
    "epsilon": 0.1,
    "weight": 1.0,
    "t": 0.4,
    "select_topk": 0.3,
    "scale": 0.9,
    "rescale": True,
}
EXPERTS = ("a", "b", "c")
# In a process of its own, since other libraries take memory.
RUN = """
import dataclasses, json, sys
from mergeplan.inspection.inspect import inspect
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.merge import merge
limit = int(sys.argv[3]) or None
found = inspect([sys.argv[1]], MergeOptions(threads=2, memory_limit=limit)).merges[0]
done = merge(sys.argv[1], sys.argv[2], MergeOptions(threads=2, memory_limit=limit))
print(json.dumps([dataclasses.asdict(found), dataclasses.asdict(done)], default=str))
"""


def run(folder, method, *, limit=0, experts=3):
    """Write a config with every option of the method; inspect it, then merge."""
    spec = METHODS[method]
    names = EXPERTS[: spec.max_inputs or experts]
    config = {
        "merge_method": method,
        "models": [{"model": str(folder / name)} for name in names],
        "parameters": {key: value for key, value in OPTIONS.items() if key in spec.options},
    }
    if spec.base != "none":
        config["base_model"] = str(folder / "base")
    (folder / "c.yml").write_text(yaml.safe_dump(config))
    arguments = [str(folder / "c.yml"), str(folder / "out"), str(limit)]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def make_pool(folder, dtype, shapes, experts=3):
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in ("base", *EXPERTS[:experts]):
        tensors = {
            key: (value + 0.01 * torch.randn(value.shape, generator=generator)).to(dtype)
            for key, value in base.items()
        }
        tensors["steps"] = torch.arange(10)
        save_checkpoint(folder / name, tensors)


DTYPES = [torch.bfloat16, torch.float32, torch.float16]
SHAPES = {"embed": (1000, 300), "wide": (3, 70_000), "up": (300, 200), "norm": (300,), "one": ()}


@pytest.mark.parametrize(("method", "dtype"), spread(paired(list(METHODS), DTYPES), 7), ids=str)
def test_a_merge_reads_writes_and_takes_what_was_forecast(method, dtype, tmp_path):
    make_pool(tmp_path, dtype, SHAPES)
    found, done = run(tmp_path, method)
    assert found["problems"] == []
    forecast, memory = found["forecast"], found["forecast"]["memory"]
    assert done["written_bytes"] == forecast["written_bytes"]
    assert list(done["files"]) == [file["name"] for file in found["output"]["files"]]
    assert done["tensors"] == found["output"]["tensors"]
    if forecast["read_is_exact"]:
        assert done["read_bytes"] == forecast["read_bytes"]
    else:
        assert done["read_bytes"] <= 1.15 * forecast["read_bytes"]
    if METHODS[method].family == "delta":
        assert done["read_bytes"] >= forecast["read_bytes"]
    assert forecast["input_bytes"] <= forecast["read_bytes"]
    assert memory["holds"]
    assert 0 < done["peak_anonymous_bytes"] <= memory["peak_bytes"]
    assert memory["peak_bytes"] <= done["memory_limit_bytes"]


@pytest.mark.parametrize("method", ["ties", "della", "sce"])
def test_a_merge_takes_no_more_than_the_lowest_limit(method, tmp_path):
    make_pool(tmp_path, torch.float32, SHAPES)
    lowest = run(tmp_path, method)[0]["forecast"]["memory"]["minimum_bytes"]
    shutil.rmtree(tmp_path / "out")
    found, done = run(tmp_path, method, limit=lowest)
    assert found["problems"] == []
    assert done["peak_anonymous_bytes"] <= done["memory_limit_bytes"] == lowest


def test_a_large_tensor_too(tmp_path):
    """One that all threads share; its thresholds take more memory, and a limit costs passes."""
    make_pool(tmp_path, torch.float32, {"embed": (17_000, 1000)}, experts=2)
    found, done = run(tmp_path, "ties", experts=2)
    forecast = found["forecast"]
    assert done["read_bytes"] == pytest.approx(forecast["read_bytes"], rel=0.15)
    assert done["peak_anonymous_bytes"] <= forecast["memory"]["peak_bytes"]
    shutil.rmtree(tmp_path / "out")
    found, done = run(tmp_path, "ties", experts=2, limit=forecast["memory"]["minimum_bytes"])
    assert not found["forecast"]["read_is_exact"]
    assert done["read_bytes"] >= forecast["read_bytes"]
    assert done["peak_anonymous_bytes"] <= found["forecast"]["memory"]["peak_bytes"]


def test_every_method_has_a_speed():
    assert set(MILLION_ELEMENTS) == set(METHODS)
