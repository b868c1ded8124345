"""What must not change a byte, and what must."""

import json
from pathlib import Path

import pytest
import torch

from mergeplan import _native
from mergeplan.config.config import parse_config
from mergeplan.merging.options import DEFAULT_SHARD_BYTES
from mergeplan.planning.planner import build_plan
from tests.support.checkpoints import save_checkpoint, weights_of
from tests.support.merges import config_text, run_mergeplan
from tests.support.shares import paired, spread

# More than one block of 65,536 elements, with a rest; and a tensor that is cut in segments.
SHAPES = {"small": (3, 5), "blocks": (700, 301), "row": (1,), "none": (0,), "deep": (2, 3, 4, 5)}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LARGE = {"large": (1 << 12, (1 << 12) + 1)}
METHODS = {
    "linear": {"weight": 0.7},
    "ties": {"weight": 0.5, "density": 0.3, "rescale": True},
    "dare_ties": {"weight": 0.5, "density": 0.3},
    "dare_linear": {"weight": 0.5, "density": 0.3},
    "breadcrumbs_ties": {"weight": 0.5, "density": 0.3, "gamma": 0.1},
    "della": {"weight": 0.5, "density": 0.3, "epsilon": 0.2},
}


def make_models(folder: Path, shapes: dict, dtype: torch.dtype, k: int = 2) -> list[Path]:
    generator = torch.Generator().manual_seed(1)
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    paths = [save_checkpoint(folder / "base", {n: t.to(dtype) for n, t in base.items()})]
    for i in range(k):
        tensors = {
            name: (t + 0.1 * torch.randn(t.shape, generator=generator)).to(dtype)
            for name, t in base.items()
        }
        paths.append(save_checkpoint(folder / f"e{i}", tensors))
    return paths


def merge_with(
    text: str, out: Path, threads: int, chunk: int, seed: int = 0, memory: int | None = 1 << 28
) -> dict[str, bytes]:
    """Merge; `memory` is the core's limit in bytes, `None` the least that it can do with."""
    plan = build_plan(parse_config(text), seed=seed, max_shard_bytes=DEFAULT_SHARD_BYTES)
    out.mkdir()
    journal = out.with_name(out.name + ".journal")
    prepared = _native.PreparedMerge(plan.json())
    if memory is None:
        memory = prepared.forecast(threads)["least_memory_bytes"]
    prepared.run(out, journal=journal, threads=threads, memory_bytes=memory, chunk=chunk)
    return weights_of(out)


@pytest.mark.parametrize(("method", "dtype"), paired(list(METHODS), DTYPES), ids=str)
def test_threads_chunks_and_memory_change_no_byte(method, dtype, tmp_path):
    base, *experts = make_models(tmp_path, SHAPES, dtype)
    text = config_text(method, experts, base=base, parameters=METHODS[method])
    runs = [(1, 4096), (2, 4096), (7, 4096), (2, 64), (1, 65_536), (3, 1024)]
    outputs = [
        merge_with(text, tmp_path / f"out{i}", threads, chunk)
        for i, (threads, chunk) in enumerate(runs)
    ]
    outputs.append(merge_with(text, tmp_path / "least", 2, 4096, memory=None))
    assert all(output == outputs[0] for output in outputs)


@pytest.mark.parametrize(
    ("method", "dtype"), spread(paired(list(METHODS), ["bfloat16", "float32"]), 2)
)
def test_a_tensor_in_segments_is_the_same_at_any_thread_count(method, dtype, tmp_path):
    base, *experts = make_models(tmp_path, LARGE, torch.bfloat16)
    text = config_text(method, experts, base=base, parameters=METHODS[method], dtype=dtype)
    # With the least memory nothing is set aside between passes, and masks are made twice.
    runs = [(1, 4096, 1 << 28), (2, 4096, None), (7, 65_536, 1 << 28)]
    outputs = [
        merge_with(text, tmp_path / f"out{i}", threads, chunk, memory=memory)
        for i, (threads, chunk, memory) in enumerate(runs)
    ]
    assert all(output == outputs[0] for output in outputs)


def test_shards_of_the_input_change_no_byte(tmp_path):
    base, *experts = make_models(tmp_path, SHAPES, torch.float32)
    from tests.support.checkpoints import load_tensors

    split = [
        save_checkpoint(tmp_path / f"s{i}", load_tensors(e), shards=3)
        for i, e in enumerate(experts)
    ]
    parameters = {"weight": 0.5, "density": 0.4}
    outputs = []
    for number, models in enumerate((experts, split)):
        text = config_text("dare_ties", models, base=base, parameters=parameters)
        outputs.append(merge_with(text, tmp_path / f"out{number}", 2, 4096))
    assert outputs[0] == outputs[1]


def test_a_mask_is_the_same_in_every_subset_and_position(tmp_path):
    # With a second expert of weight zero, or in another place, the first one's mask must not move.
    base, a, b = make_models(tmp_path, SHAPES, torch.float32)
    outputs = []
    settings = [([a], [1]), ([a, b], [1, 0]), ([b, a], [0, 1])]
    for number, (models, weights) in enumerate(settings):
        text = config_text(
            "dare_linear",
            models,
            base=base,
            per_model=[{"weight": weight, "density": 0.4} for weight in weights],
        )
        outputs.append(merge_with(text, tmp_path / f"out{number}", 2, 4096))
    assert outputs[0] == outputs[1] == outputs[2]


def test_seed_and_content_each_change_the_mask(tmp_path):
    base, a, _ = make_models(tmp_path, {"x": (50, 50)}, torch.float32)
    text = config_text("dare_linear", [a], base=base, parameters={"weight": 1, "density": 0.4})
    one = merge_with(text, tmp_path / "one", 1, 4096, seed=0)
    assert one != merge_with(text, tmp_path / "two", 1, 4096, seed=1)
    assert one == merge_with(text, tmp_path / "three", 1, 4096, seed=0)
    large = merge_with(text, tmp_path / "four", 1, 4096, seed=2**64 - 1)
    assert large != one


def test_the_seed_is_recorded_with_the_output(tmp_path):
    base, a, _ = make_models(tmp_path, SHAPES, torch.float32)
    text = config_text("dare_linear", [a], base=base, parameters={"weight": 1, "density": 0.4})
    run_mergeplan(text, tmp_path / "out", seed=17)
    manifest = json.loads((tmp_path / "out" / "mergeplan_manifest.json").read_text())
    assert manifest["seed"] == 17
    assert "17" in (tmp_path / "out" / "README.md").read_text()


def test_identical_experts_merge_into_themselves(tmp_path):
    base, a, _ = make_models(tmp_path, SHAPES, torch.float32)
    from tests.support.checkpoints import load_tensors

    twin = save_checkpoint(tmp_path / "twin", load_tensors(a))
    for method in ("linear", "ties", "task_arithmetic"):
        text = config_text(
            method,
            [a, twin],
            base=None if method == "linear" else base,
            parameters={"weight": 1.0, "normalize": True},
        )
        run_mergeplan(text, tmp_path / method)
        for name, tensor in load_tensors(tmp_path / method).items():
            torch.testing.assert_close(tensor, load_tensors(a)[name], rtol=0, atol=2e-7)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear"])
def test_density_zero_leaves_the_base(method, tmp_path):
    base, *experts = make_models(tmp_path, SHAPES, torch.bfloat16)
    text = config_text(method, experts, base=base, parameters={"weight": 1, "density": 0})
    run_mergeplan(text, tmp_path / "out")
    assert weights_of(tmp_path / "out") == weights_of(base)


def test_tensors_that_are_counted_in_tables_are_told(tmp_path):
    """Those whose sample cannot tell where the threshold lies: one row in ten is loud."""
    generator = torch.Generator().manual_seed(1)
    shape = (2048, 512)
    loud = torch.where(torch.arange(2048) % 10 == 0, 100.0, 1.0)[:, None]
    zeros = {"even": torch.zeros(shape), "rows": torch.zeros(shape)}
    paths = [save_checkpoint(tmp_path / "base", zeros)]
    for number in range(2):
        even, rows = (torch.randn(shape, generator=generator) for _ in zeros)
        paths.append(save_checkpoint(tmp_path / f"e{number}", {"even": even, "rows": rows * loud}))
    options = {"weight": 0.5, "density": 0.2}
    text = config_text("ties", paths[1:], base=paths[0], per_model=[options] * 2, dtype="float32")
    report = run_mergeplan(text, tmp_path / "out")
    assert (report.table_tensors, report.table_elements) == (2, 2 * 2048 * 512)
