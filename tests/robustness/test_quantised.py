"""Quantised models that are not read: named by what they are, before anything is written."""

import json

import pytest
import torch

import mergeplan
from mergeplan.checkpoints.opening import OpenOptions, open_checkpoint, open_stored
from mergeplan.checkpoints.quantised import QuantisedError
from mergeplan.errors import InputError
from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text

PLAIN = {"x.weight": torch.ones(4, 8).bfloat16(), "norm.weight": torch.ones(8).bfloat16()}
BYTES, INTS = torch.ones(16, 1, dtype=torch.uint8), torch.ones(4, 8, dtype=torch.int32)
ONE = torch.ones(1)
F8 = torch.ones(4, 8).to(torch.float8_e4m3fn)
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
# What each kind stores beside plain tensors, its settings, and what the message calls it.
KINDS = {
    "bnb 4 bits": (
        {
            "x.weight": BYTES,
            "x.weight.absmax": torch.ones(4, dtype=torch.uint8),
            "x.weight.quant_map": torch.ones(16),
            "x.weight.quant_state.bitsandbytes__nf4": torch.ones(80, dtype=torch.uint8),
        },
        BNB,
        "bitsandbytes (4 bits)",
    ),
    "bnb 8 bits": (
        {"x.weight": INTS.to(torch.int8), "x.SCB": torch.ones(4)},
        {"load_in_8bit": True},
        "bitsandbytes (8 bits)",
    ),
    "bnb without its settings": ({"x.SCB": torch.ones(4)}, None, "bitsandbytes"),
    "GPTQ": (
        {"x.qweight": INTS, "x.qzeros": INTS, "x.scales": ONE, "x.g_idx": INTS[0]},
        {"quant_method": "gptq", "bits": 4},
        "gptq (4 bits)",
    ),
    "AWQ without its settings": (
        {"x.qweight": INTS, "x.qzeros": INTS, "x.scales": ONE},
        None,
        "GPTQ or AWQ",
    ),
    "compressed-tensors": (
        {"x.weight_packed": INTS, "x.weight_scale": ONE, "x.weight_shape": torch.ones(2).long()},
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        "compressed-tensors (pack-quantized)",
    ),
    "MXFP4 inside text_config": (
        {"mlp.experts.gate_up_proj_blocks": BYTES, "mlp.experts.gate_up_proj_scales": BYTES},
        {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}},
        "mxfp4",
    ),
    "MXFP4 without its settings": ({"gate_up_proj_blocks": BYTES}, None, "MXFP4"),
    "NVFP4": (
        {"x.weight": BYTES, "x.weight_scale": F8, "x.weight_scale_2": ONE},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        "modelopt",
    ),
    "int8 with scales": (
        {"x.weight": INTS.to(torch.int8), "x.weight_scale": torch.ones(4, 1)},
        {"quant_method": "compressed-tensors", "format": "int-quantized"},
        "compressed-tensors (int-quantized)",
    ),
    "BitNet without its settings": (
        {"x.weight": BYTES, "x.weight_scale": ONE},
        None,
        "a quantised model",
    ),
    "scales beside weights that are plain": ({"x.weight_scale": ONE}, None, "scales whose weights"),
    "HQQ": ({"x.W_q": BYTES, "x.meta": ONE}, {"quant_method": "hqq"}, "hqq"),
    "AQLM": (
        {"x.codes": INTS.to(torch.int8), "x.codebooks": ONE, "x.scales": ONE},
        None,
        "of AQLM",
    ),
    "quanto": ({"x.weight._data": BYTES, "x.weight._scale": ONE}, None, "quanto"),
    "plain tensors with settings": ({}, {"quant_method": "torchao"}, "found torchao"),
    "8 bits without scales": ({"x.weight": F8}, None, "F8_E4M3 without any"),
    "scales in 8 bits": ({"x.weight": F8, "x.weight_scale": F8}, None, "found F8_E4M3"),
    "no row and no scale": (
        {"x.weight": F8[:0], "x.weight_scale": torch.ones(0, 1)},
        None,
        "of shape [0, 8], found none: its own shape is [0, 1]",
    ),
    "two kinds of scales": (
        {"x.weight": F8, "x.weight_scale": ONE, "x.weight_scale_inv": ONE},
        None,
        "`x.weight_scale_inv` and `x.weight_scale`",
    ),
    "scales of another block": (
        {"x.weight": F8, "x.weight_scale_inv": torch.ones(2, 3)},
        {"quant_method": "fp8", "weight_block_size": [2, 2]},
        "each block of 2 x 2, as its shape [4, 8] has them, found shape [2, 3]",
    ),
    "rotated": (
        {"x.weight": F8, "x.weight_scale": ONE},
        {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"u": {}}}},
        "the weights are rotated",
    ),
    "fp8 with zero points": (
        {"x.weight": F8, "x.weight_scale": ONE, "x.weight_zero_point": ONE},
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
        "compressed-tensors (float-quantized)",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_named_with_a_way_out(kind, tmp_path):
    tensors, settings, expected = KINDS[kind]
    config = settings or {}
    if config and "text_config" not in config:
        config = {"quantization_config": config}
    own = {name: tensor.clone() for name, tensor in {**PLAIN, **tensors}.items()}
    folder = save_checkpoint(tmp_path / "m", own, config)
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(folder))
    assert expected in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.hint
    # What only looks at the files is not kept from it.
    assert open_stored(str(folder)).tensors.keys() == {*PLAIN, *tensors}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config.weight_block_size", [0, 128]),
        ("quantization_config.weight_block_size", "x"),
        ("quantization_config.weight_block_size", [128]),
        ("quantization_config.weight_block_size", [True, 128]),
        ("quantization_config.weight_block_size", [10**30, 128]),
        ("text_config.quantization_config.weight_block_size", 128),
        ("quantization_config", [1]),
        ("compression_config", "fp8"),
    ],
)
def test_settings_without_a_meaning_are_not_passed_over(key, value, tmp_path):
    tensors = {"x.weight": F8.clone(), "x.weight_scale_inv": torch.ones(1, 1)}
    config = value
    for word in reversed(key.split(".")):
        config = {word: config}
        if word == "weight_block_size":
            config["quant_method"] = "fp8"
    folder = save_checkpoint(tmp_path / "m", {**PLAIN, **tensors}, config)
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(folder))
    assert caught.value.message.startswith(f"`{folder / 'config.json'}`: `{key}`: expected ")
    assert caught.value.message.endswith(f"found `{json.dumps(value)}`")
    assert "config.json" in caught.value.hint


@pytest.mark.parametrize("more", [{}, {"weight_block_size": None}])
@pytest.mark.parametrize("settings", [None, {}, {"quant_method": "fp8"}])
def test_without_a_block_in_the_settings_it_is_128_on_each_side(settings, more, tmp_path):
    tensors = {"x.weight": torch.ones(130, 8).to(torch.float8_e4m3fn)}
    tensors["x.weight_scale_inv"] = torch.ones(2, 1)
    config = {"quantization_config": settings and {**settings, **more}}
    folder = save_checkpoint(tmp_path / "m", tensors, config)
    opened = open_checkpoint(str(folder))
    assert opened.made.kinds[0].block == (128, 128)


def test_every_way_to_a_merge_refuses_it_before_it_writes(tmp_path):
    tensors, settings, expected = KINDS["bnb 4 bits"]
    plain = save_checkpoint(tmp_path / "plain", PLAIN)
    folder = save_checkpoint(
        tmp_path / "m", {**PLAIN, **tensors}, {"quantization_config": settings}
    )
    text = config_text("linear", [plain, folder], parameters={"weight": 1})
    (tmp_path / "c.yml").write_text(text)
    for command in (
        ("inspect", folder),
        ("inspect", plain, folder),
        ("inspect", "c.yml"),
        ("merge", "c.yml", "out", "--dry-run"),
        ("merge", "c.yml", "out"),
    ):
        run = cli(*command, cwd=tmp_path)
        assert run.returncode in (1, 2), command
        assert expected in run.stderr + run.stdout, command
    with pytest.raises(QuantisedError):
        list(mergeplan.stream(tmp_path / "c.yml"))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("named", ["q", "unsloth/llama-3-8b-bnb-4bit"])
def test_an_adapter_that_was_trained_on_one_asks_for_the_unquantised_base(named, tmp_path):
    tensors, settings, _ = KINDS["bnb 4 bits"]
    save_checkpoint(tmp_path / "l" / "q", {**PLAIN, **tensors}, {"quantization_config": settings})
    save_checkpoint(tmp_path / "a", {"base_model.model.x.lora_A.weight": torch.ones(2, 8)})
    (tmp_path / "a" / "model.safetensors").rename(tmp_path / "l" / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": named}
    (tmp_path / "l" / "adapter_config.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="which is quantised") as caught:
        open_checkpoint(str(tmp_path / "l"), OpenOptions(cache=str(tmp_path), download=True))
    assert named in caught.value.message
    assert "base+adapter" in (caught.value.hint or "")


def test_names_of_plain_models_are_no_marks(tmp_path):
    tensors = {
        **PLAIN,
        "blocks": torch.ones(2, dtype=torch.int64),
        "attn.W_q.weight": torch.ones(2, 2),
        "layer_scale": torch.ones(2),
        "attn.k_scale": torch.ones(1),
        "bn.num_batches_tracked": torch.tensor(3),
        "quantizer.codebooks": torch.ones(2, 4, 8),
        "quantizer.code.weight": torch.ones(4, 4, dtype=torch.int64),
        "attn.bias": torch.ones(2, 2, dtype=torch.bool),
    }
    folder = save_checkpoint(tmp_path / "m", tensors, {"dtype": "bfloat16"})
    assert open_checkpoint(str(folder)).tensors.keys() == tensors.keys()
