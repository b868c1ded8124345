"""Folders that are nearly a model: named for what they are, with a way out (issue 20, item 12)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergeplan.checkpoints.adapters.folder import is_adapter
from mergeplan.checkpoints.opening import OpenOptions, open_checkpoint
from mergeplan.errors import InputError
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.merges import config_text, run_mergeplan

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456789\n".format(
    "0" * 64
)
WEIGHT = "layers.0.q_proj.weight"


@pytest.fixture
def base(tmp_path) -> Path:
    return save_checkpoint(tmp_path / "base", {WEIGHT: torch.ones(4, 4)}, {"model_type": "x"})


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    """A LoRA adapter's folder, as peft writes it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    module = f"base_model.model.{WEIGHT.removesuffix('.weight')}"
    factors = {
        f"{module}.lora_A.weight": torch.ones(2, 4),
        f"{module}.lora_B.weight": torch.ones(4, 2),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def passthrough(model: object, out: Path) -> torch.Tensor:
    run_mergeplan(config_text("passthrough", [model]), out)
    return load_tensors(out)[WEIGHT]


def test_an_adapter_beside_a_config_is_an_adapter(base, adapter, tmp_path):
    assert passthrough(adapter, tmp_path / "before").unique().tolist() == [3.0]
    shutil.copy(base / "config.json", adapter)
    assert passthrough(adapter, tmp_path / "after").unique().tolist() == [3.0]
    assert weights_of(tmp_path / "before") == weights_of(tmp_path / "after")
    assert is_adapter(adapter)
    assert not is_adapter(base)


def test_an_adapter_beside_a_model_is_refused_and_each_reading_may_be_given(
    base, adapter, tmp_path
):
    both = tmp_path / "both"
    shutil.copytree(adapter, both)
    shutil.copy(base / "config.json", both)
    save_file({WEIGHT: torch.full((4, 4), 7.0)}, both / "model.safetensors")
    with pytest.raises(InputError, match="both a model, `model.safetensors`, and an adapter") as c:
        open_checkpoint(str(both))
    ways = {str(both / "model.safetensors"): 7.0}
    ways |= {f"{both / 'model.safetensors'}+{both}": 9.0, f"{base}+{both}": 3.0}
    for number, (model, value) in enumerate(ways.items()):
        assert f"`{model}`".replace(f"`{base}+", "`base+") in (c.value.hint or "")
        assert passthrough(model, tmp_path / f"{number}").unique().tolist() == [value]
    # An adapter's config alone says nothing of the model beside it.
    (both / "adapter_model.safetensors").unlink()
    assert passthrough(both, tmp_path / "model").unique().tolist() == [7.0]


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_what_zero_3_leaves_is_refused_by_its_name(kind, base, adapter):
    folder, file = (base, "model") if kind == "model" else (adapter, "adapter_model")
    path = folder / f"{file}.safetensors"
    save_file(dict.fromkeys(load_tensors(folder), torch.zeros(0)), path)
    with pytest.raises(InputError, match=r"is empty, of shape \[0\].*ZeRO-3") as caught:
        open_checkpoint(str(folder))
    assert f"`{path}`" in caught.value.message
    assert ("and so are 1 more" in caught.value.message) == (kind == "adapter")
    for word in ("zero_to_fp32.py", "stage3_gather_16bit_weights_on_model_save"):
        assert word in (caught.value.hint or "")


def test_a_buffer_without_elements_is_none_of_that(tmp_path):
    folder = save_checkpoint(tmp_path / "m", {"x": torch.ones(2), "cache": torch.zeros(0)})
    run_mergeplan(config_text("passthrough", [folder]), tmp_path / "out")
    assert load_tensors(tmp_path / "out")["cache"].shape == (0,)


def test_factors_of_a_lora_are_no_model(adapter, tmp_path):
    with pytest.raises(InputError, match="is a factor of a LoRA update"):
        open_checkpoint(str(adapter / "adapter_model.safetensors"))
    shutil.copy(adapter / "adapter_model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="is a factor of a LoRA update"):
        open_checkpoint(str(tmp_path))


def test_factors_that_are_part_of_an_architecture_are_merged_as_all_others(tmp_path):
    """Phi-4-multimodal has adapters for each kind of input beside the layer itself."""
    names = ("base_layer.weight", "lora_A.speech.weight", "lora_B.speech.weight")
    for folder, prefix in (("own", "model.qkv_proj"), ("wrapped", "base_model.model.qkv_proj")):
        tensors = {f"{prefix}.{name}": torch.ones(2, 2) for name in names}
        save_checkpoint(tmp_path / folder, tensors, {"model_type": "phi4mm"})
    run_mergeplan(
        config_text("linear", [tmp_path / "own"], parameters={"weight": 1}), tmp_path / "o"
    )
    assert weights_of(tmp_path / "o") == weights_of(tmp_path / "own")
    with pytest.raises(InputError, match="is a factor of a LoRA update"):
        open_checkpoint(str(tmp_path / "wrapped"))
    (tmp_path / "own" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is a factor of a LoRA update"):
        open_checkpoint(str(tmp_path / "own"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("sharded", [False, True])
def test_git_lfs_pointers_are_named(name, sharded, tmp_path):
    if sharded:
        shard = name.replace(".", "-00001-of-00001.", 1)
        index = {"weight_map": {"x": shard}}
        (tmp_path / f"{name}.index.json").write_text(json.dumps(index))
        name = shard
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match="found a git-lfs pointer") as caught:
        open_checkpoint(str(tmp_path))
    assert f"`{tmp_path / name}`" in caught.value.message
    assert "git lfs pull" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer.model"])
def test_pointers_among_what_is_copied_are_named_before_anything_is_written(name, base, tmp_path):
    (base / name).write_text(POINTER)
    with pytest.raises(InputError, match="found a git-lfs pointer") as caught:
        run_mergeplan(config_text("passthrough", [base]), tmp_path / "out")
    assert f"`{base / name}`" in caught.value.message
    assert not list(tmp_path.glob("out*"))


def touch(*names: str):
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    return make


# What is there, words of the message, words of the hint.
NEARLY = {
    "nothing": (touch("config.json.md"), "expected `model.safetensors`", "folder of a checkpoint"),
    "training checkpoints": (
        touch("checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"),
        "`checkpoint-500`, `checkpoint-1000`",
        "checkpoint-1000`",
    ),
    "training adapters": (
        touch("checkpoint-20/adapter_config.json", "trainer_state.json"),
        "training checkpoints: `checkpoint-20`",
        "checkpoint-20`",
    ),
    "a folder within": (
        touch("final/pytorch_model.bin"),
        "folders that do: `final`",
        "final`",
    ),
    "DeepSpeed": (
        touch("global_step9/mp_rank_00_model_states.pt", "zero_to_fp32.py", "trainer_state.json"),
        "DeepSpeed checkpoint in pieces: `zero_to_fp32.py`",
        "zero_to_fp32.py . OUT",
    ),
    "DeepSpeed without its script": (
        touch("global_step9/mp_rank_00_model_states.pt"),
        "DeepSpeed checkpoint in pieces: `global_step9`",
        "zero_to_fp32.py",
    ),
    "FSDP": (
        touch("pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/__0_0.distcp"),
        "FSDP checkpoint in pieces: `pytorch_model_fsdp_0`",
        "accelerate merge-weights",
    ),
    "FSDP's inner folder": (
        touch("__0_0.distcp", ".metadata"),
        "distributed format: `__0_0.distcp`",
        "accelerate merge-weights",
    ),
    "optimizer only": (
        touch("optimizer.pt", "rng_state.pth", "trainer_state.json", "config.json.bak"),
        "a training checkpoint without weights",
        "save_model",
    ),
    "GGUF": (touch("m.Q4_K_M.gguf"), "llama.cpp's format, GGUF: `m.Q4_K_M.gguf`", "convert"),
    "TensorFlow": (touch("tf_model.h5"), "TensorFlow weights alone", "save_pretrained"),
    "Flax": (touch("flax_model.msgpack"), "Flax weights alone", "save_pretrained"),
    "ONNX": (touch("model.onnx"), "an ONNX model", "made from"),
    "Meta's": (touch("consolidated.00.pth", "params.json"), "Meta's own layout", "convert_llama"),
    "Mistral's": (
        touch("consolidated.safetensors", "params.json"),
        "Mistral's own layout",
        "the file itself",
    ),
    "a download": (touch("model.safetensors.incomplete"), "an unfinished download", "hf download"),
    "another name": (
        touch("epoch=3.pt", "training_args.bin"),
        "but `epoch=3.pt`",
        "epoch=3.pt`",
    ),
    "a variant": (
        touch("model.fp16.safetensors"),
        "but `model.fp16.safetensors`",
        "model.fp16.safetensors`",
    ),
    "a snapshot without weights": (
        touch("snapshots/abc/tokenizer.json"),
        "without its weights",
        "hf download org/name`",
    ),
    "the hub's cache": (
        touch("snapshots/abc/model.safetensors", "refs/main"),
        "place in the hub's cache",
        "snapshots/abc`",
    ),
}


@pytest.mark.parametrize("case", NEARLY)
def test_what_is_no_model_is_named_with_a_way_out(case, tmp_path):
    make, words, hint = NEARLY[case]
    folder = tmp_path / "models--org--name"
    folder.mkdir()
    make(folder)
    if case == "a snapshot without weights":
        folder = folder / "snapshots" / "abc"
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(folder), OpenOptions())
    assert words in caught.value.message
    assert str(folder) in caught.value.message
    assert hint in (caught.value.hint or "")
