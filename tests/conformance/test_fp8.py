"""Checkpoints in 8 bits with scales merge as their twins do that were dequantised before."""

import json
from types import SimpleNamespace

import pytest
import torch

from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.errors import InputError
from mergeplan.inspection.diff import diff
from mergeplan.inspection.inspect import inspect
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.fp8 import config_of, dequantised, quantised, save_fp8
from tests.support.merges import config_text, run_mergeplan

# Whole blocks, partial ones at both edges, fewer than one; rows that are no multiple of a chunk.
SHAPES = {"a.weight": (256, 128), "b.weight": (200, 300), "c.weight": (5, 7), "d.weight": (129, 1)}
BLOCKS = dict.fromkeys(SHAPES, (128, 128))
CASES = [
    ("linear", {"weight": 0.4}, False),
    ("ties", {"weight": 0.7, "density": 0.4}, True),
    ("karcher", {}, False),
    ("slerp", {"t": 0.3}, True),
]


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {name: t.bfloat16() for name, t in draw.items()} | {"norm.weight": torch.ones(5) * seed}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """`a` and `b` in 8 bits, their twins in bfloat16, and a base that never had fewer bits."""
    root = tmp_path_factory.mktemp("fp8")
    for seed, name in enumerate("abc"):
        save_fp8(root / name, tensors_of(seed), BLOCKS, twin=root / f"{name}-plain")
    return root


@pytest.mark.parametrize(("method", "parameters", "has_base"), CASES)
@pytest.mark.parametrize("base", ["c", "c-plain"])
def test_it_merges_as_its_twin(method, parameters, has_base, base, pool, tmp_path):
    names = ["a"] if method == "slerp" else ["a", "b"]
    for out, models in (("ours", names), ("twin", [f"{name}-plain" for name in names])):
        own = base if out == "ours" else "c-plain"
        text = config_text(
            method,
            [pool / name for name in models],
            base=pool / own if has_base else None,
            parameters=parameters,
        )
        run_mergeplan(text, tmp_path / out)
    assert weights_of(tmp_path / "ours") == weights_of(tmp_path / "twin")
    config = config_of(tmp_path / "ours")
    assert config == config_of(tmp_path / "twin")
    assert "quantization_config" not in config


def test_scales_of_whole_tensors_rows_columns_and_packed_experts(tmp_path):
    """Per tensor and per channel as compressed-tensors and FBGEMM store them, and Llama 4's."""
    generator = torch.Generator().manual_seed(0)
    blocks = {"t.weight": (6, 10), "r.weight": (1, 10), "experts.gate_up_proj": (1, 4, 1)}
    blocks |= {"experts.down_proj": (1, 1, 10), "e.weight": (1, 6, 10)}
    tensors = {
        name: torch.randn(6, 10, generator=generator).bfloat16()
        if len(block) == 2
        else torch.randn(3, *((4, 6) if block[1] == 4 else (6, 10)), generator=generator).bfloat16()
        for name, block in blocks.items()
    }
    settings = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    save_fp8(
        tmp_path / "m", tensors, blocks, ending="_scale", settings=settings, twin=tmp_path / "twin"
    )
    flat = load_tensors(tmp_path / "m")
    # One number or one axis, where others write axes of one.
    flat["t.weight_scale"] = flat["t.weight_scale"].reshape(())
    flat["r.weight_scale"] = flat["r.weight_scale"].reshape(6)
    flat["e.weight_scale"] = flat["e.weight_scale"].reshape(3)
    save_checkpoint(tmp_path / "flat", flat, config_of(tmp_path / "m"))
    for name in ("twin", "m", "flat"):
        run_mergeplan(config_text("passthrough", [tmp_path / name]), tmp_path / f"out-{name}")
        assert weights_of(tmp_path / f"out-{name}") == weights_of(tmp_path / "out-twin")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("stated", ["bfloat16", "float16", "float32", None])
def test_every_8_bit_value_is_rounded_to_the_dtype_that_the_config_says(dtype, stated, tmp_path):
    q = torch.arange(256, dtype=torch.uint8).view(dtype).reshape(16, 16)
    q = torch.where(q.float().isfinite(), q.float(), 0.0).to(dtype)
    scales = torch.tensor([[1.0], [0.1], [3e-7], [1.1]]).repeat(4, 1)
    config = {"text_config": {"dtype": stated}} if stated else {}
    tensors = {"x.weight": q, "x.weight_scale": scales, "x.input_scale": torch.ones(1)}
    save_checkpoint(tmp_path / "m", tensors, config)
    text = config_text("passthrough", [tmp_path / "m"])
    run_mergeplan(text, tmp_path / "out")
    expected = dequantised(q, scales, (1, 16), getattr(torch, stated or "bfloat16"))
    found = load_tensors(tmp_path / "out")
    assert found.keys() == {"x.weight"}
    assert found["x.weight"].dtype == expected.dtype
    assert torch.equal(found["x.weight"], expected)


@pytest.mark.parametrize("what", ["q", "scale"])
def test_what_is_not_finite_is_named(what, tmp_path):
    q, scales = quantised(torch.ones(4, 4), (1, 4))
    if what == "q":
        q.view(torch.uint8)[2, 1] = 0x7F
    else:
        scales[2] = float("inf")
    save_checkpoint(tmp_path / "m", {"x.weight": q, "x.weight_scale": scales})
    text = config_text("passthrough", [tmp_path / "m"])
    name, place = ("x.weight", 9) if what == "q" else ("x.weight_scale", 2)
    with pytest.raises(InputError, match=f"tensor `{name}`: element {place} is"):
        run_mergeplan(text, tmp_path / "out")
    run_mergeplan(text, tmp_path / "all", allow_nonfinite=True)
    assert not load_tensors(tmp_path / "all")["x.weight"][2].isfinite().all()


@pytest.mark.long
def test_transformers_reads_what_it_wrote_to_the_same_values(tmp_path):
    """A model in transformers' own fp8, loaded by it on a CPU, which dequantises."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config, Qwen3Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = Qwen3Config(
        hidden_size=256, intermediate_size=384, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=128, vocab_size=64, dtype="bfloat16",
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).bfloat16()
    settings = FineGrainedFP8Config()
    quantise = Fp8Quantize(SimpleNamespace(quantization_config=settings))
    tensors = {}
    for name, tensor in model.state_dict().items():
        is_linear = name.endswith("proj.weight")
        tensors |= quantise.convert({name: tensor}) if is_linear else {name: tensor}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_checkpoint(
        tmp_path / "m", tensors, {**config.to_dict(), "quantization_config": settings.to_dict()}
    )
    run_mergeplan(config_text("passthrough", [tmp_path / "m"]), tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype="auto")
    expected, found = theirs.state_dict(), load_tensors(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name])
        assert tensor.dtype == torch.bfloat16


def test_an_adapter_on_it_is_added_to_the_dequantised_weights(pool, tmp_path):
    generator = torch.Generator().manual_seed(5)
    a, b = torch.randn(4, 300, generator=generator), torch.randn(200, 4, generator=generator)
    prefix = "base_model.model.b"
    save_checkpoint(tmp_path / "l", {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b})
    (tmp_path / "l" / "model.safetensors").rename(tmp_path / "l" / "adapter_model.safetensors")
    (tmp_path / "l" / "config.json").unlink()
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "nowhere"}
    (tmp_path / "l" / "adapter_config.json").write_text(json.dumps(said))
    for base in ("a", "a-plain"):
        text = config_text(
            "task_arithmetic",
            [f"{pool / base}+{tmp_path / 'l'}"],
            base=pool / base,
            parameters={"weight": 0.5},
        )
        run_mergeplan(text, tmp_path / base)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "a-plain")
    assert not torch.equal(
        load_tensors(tmp_path / "a")["b.weight"], load_tensors(pool / "a-plain")["b.weight"]
    )


def test_diff_compares_what_the_files_hold(pool):
    assert not diff(pool / "a", pool / "a").differing
    found = {tensor.tensor: tensor.status for tensor in diff(pool / "a", pool / "b").tensors}
    assert found["a.weight"] == found["a.weight_scale_inv"] == "differs"
    found = {tensor.tensor: tensor.status for tensor in diff(pool / "a", pool / "a-plain").tensors}
    assert (found["a.weight"], found["norm.weight"]) == ("dtype", "equal")
    assert found["a.weight_scale_inv"] == "only in a"


def test_inspect_and_similarity_see_the_dtype_that_it_is_read_as(pool):
    facts = inspect(str(pool / "a")).checkpoints[0]
    assert {tensor.name: tensor.dtype for tensor in facts.tensors} == {
        **dict.fromkeys(SHAPES, "BF16"),
        "norm.weight": "F32",
    }
    assert facts.files[0].n_bytes < facts.n_bytes
    assert open_checkpoint(str(pool / "a")).config == config_of(pool / "a-plain")
