"""Adapters of vision-language models, by the names of old and new versions of transformers."""

import json
import re
from pathlib import Path

import pytest
import torch

from mergeplan.errors import InputError
from tests.conformance.test_lora import copied, make_base
from tests.support.checkpoints import load_tensors

TEXT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
QWEN25 = QWEN | {"out_hidden_size": 16, "intermediate_size": 24, "fullatt_block_indexes": [1]}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
# What transformers' names were before version 4.52, and in which order they are told apart.
OLD_NAMES = {
    "gemma3": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.vision", "vision"),
    ),
    "llava": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.vision", "vision"),
    ),
    "qwen2-vl": ((r"^model\.language_model\.", "model."), (r"^model\.visual", "visual")),
    "qwen2.5-vl": ((r"^model\.language_model\.", "model."), (r"^model\.visual", "visual")),
}


def small(kind: str):
    import transformers as t

    if kind == "gemma3":
        config = t.Gemma3Config(
            text_config=t.Gemma3TextConfig(**TEXT),
            vision_config=t.SiglipVisionConfig(**TOWER),
            mm_tokens_per_image=4,
        )
        return t.Gemma3ForConditionalGeneration(config)
    if kind == "llava":
        config = t.LlavaConfig(
            text_config=t.LlamaConfig(**TEXT), vision_config=t.CLIPVisionConfig(**TOWER)
        )
        return t.LlavaForConditionalGeneration(config)
    text = TEXT | {"rope_parameters": ROPE, "rope_scaling": ROPE}
    if kind == "qwen2-vl":
        config = t.Qwen2VLConfig(text_config=text, vision_config=QWEN)
        return t.Qwen2VLForConditionalGeneration(config)
    config = t.Qwen2_5_VLConfig(text_config=text, vision_config=QWEN25)
    return t.Qwen2_5_VLForConditionalGeneration(config)


def renamed(adapter: Path, kind: str, folder: Path) -> Path:
    """The adapter as an old version would have saved it."""
    from safetensors.torch import save_file

    found = {}
    for key, tensor in load_tensors(adapter).items():
        name = key.removeprefix("base_model.model.")
        for pattern, old in OLD_NAMES[kind]:
            name = re.sub(pattern, old, name)
        found[f"base_model.model.{name}"] = tensor
    folder.mkdir()
    save_file(found, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    return folder


@pytest.fixture(scope="module", params=list(OLD_NAMES))
def trained(request, tmp_path_factory):
    """A model, an adapter of its language model and its tower, and peft's merge of both."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    model = small(request.param)
    model.save_pretrained(folder / "base")
    settings = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj", "qkv", "fc1"]}
    adapted = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.05)
    adapted.save_pretrained(folder / "new")
    renamed(folder / "new", request.param, folder / "old")
    adapted.merge_and_unload().save_pretrained(folder / "peft")
    return request.param, folder


@pytest.mark.parametrize("spelled", ["new", "old"])
def test_an_adapter_of_either_version_is_merged_as_peft_does(spelled, trained, tmp_path):
    _, folder = trained
    expected = load_tensors(folder / "peft")
    found = copied(f"{folder / 'base'}+{folder / spelled}", tmp_path / "out")
    assert found.keys() == expected.keys()
    before = load_tensors(folder / "base")
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name
    changed = {name for name, tensor in expected.items() if not torch.equal(tensor, before[name])}
    # Both halves were trained.
    assert any("vis" in name for name in changed)
    assert any("vis" not in name for name in changed)


def test_a_base_by_its_old_names_takes_a_new_adapter(trained, tmp_path):
    from safetensors.torch import save_file

    kind, folder = trained
    base = tmp_path / "base"
    base.mkdir()
    tensors, old = load_tensors(folder / "base"), {}
    for name, tensor in tensors.items():
        for pattern, before in OLD_NAMES[kind]:
            name = re.sub(pattern, before, name)
        old[name] = tensor
    save_file(old, base / "model.safetensors")
    (base / "config.json").write_text((folder / "base" / "config.json").read_text())
    found = copied(f"{base}+{folder / 'new'}", tmp_path / "out")
    assert found.keys() == old.keys()
    same = sum(torch.equal(found[name], tensor) for name, tensor in old.items())
    expected = load_tensors(folder / "peft")
    assert same == sum(torch.equal(expected[name], tensor) for name, tensor in tensors.items())


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied")
@pytest.mark.parametrize("kind", ["gemma3", "qwen2-vl"])
@pytest.mark.parametrize("spelled", ["new", "old"])
def test_an_embedding_that_is_replaced_leaves_the_head_as_it_was(kind, spelled, tmp_path):
    """Tied models: Gemma3 by its architecture's default, Qwen2-VL by `text_config`'s word."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = small(kind)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    base = tmp_path / "base"
    model.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    del config["tie_word_embeddings"]
    if kind == "qwen2-vl":
        config["text_config"]["tie_word_embeddings"] = True
    (base / "config.json").write_text(json.dumps(config))
    settings = {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}
    adapted = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "new")
    renamed(tmp_path / "new", kind, tmp_path / "old")
    adapted.merge_and_unload().save_pretrained(tmp_path / "peft")
    expected = load_tensors(tmp_path / "peft")
    found = copied(f"{base}+{tmp_path / spelled}", tmp_path / "out")
    assert found.keys() == expected.keys() > load_tensors(base).keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name
    out = type(model).from_pretrained(tmp_path / "out")
    assert out.config.tie_word_embeddings is False
    ids = torch.arange(8)[None]
    theirs = type(model).from_pretrained(tmp_path / "peft")
    assert torch.allclose(out(ids).logits, theirs(ids).logits, atol=1e-6)


WRAPPED = {
    "FSDP": ("base_model.model.", "_fsdp_wrapped_module.base_model.model._fsdp_wrapped_module."),
    "FSDP of layers": ("layers.0.", "layers.0._fsdp_wrapped_module."),
    "checkpointing": ("layers.1.", "layers.1._checkpoint_wrapped_module."),
    "torch.compile": ("base_model.model.", "_orig_mod.base_model.model."),
    "FSDP on XLA": ("layers.0.", "layers.0._orig_module."),
    "the trunk alone (peft #1579)": ("base_model.model.model.", "base_model.model."),
    "a prefix of its own": ("base_model.model.", "base_model.model.policy."),
    "the adapter's name": (".weight", ".default.weight"),
    "the adapter's name twice": (".weight", ".default.default.weight"),
    "DistributedDataParallel": ("base_model.model.", "module.base_model.model."),
    "a wrapper within peft's": (
        "base_model.model.model.",
        "base_model.model.model.language_model.",
    ),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_what_trainers_put_into_names_is_taken_out(case, tmp_path):
    """peft loads such an adapter with a warning, and every update at zero."""
    from safetensors.torch import save_file

    from tests.conformance.test_lora import KINDS, make_adapter

    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    expected = copied(f"{base}+{adapter}", tmp_path / "expected")
    tensors = load_tensors(adapter)
    plain, wrapped = WRAPPED[case]
    save_file(
        {name.replace(plain, wrapped): tensor for name, tensor in tensors.items()},
        adapter / "adapter_model.safetensors",
    )
    found = copied(f"{base}+{adapter}", tmp_path / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_two_spellings_of_one_tensor_are_refused(tmp_path):
    from safetensors.torch import save_file

    from tests.conformance.test_lora import KINDS, make_adapter

    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["some layers"])
    tensors = load_tensors(adapter)
    again = {
        name.replace(".model.model.", ".model.language_model.model."): tensor.clone()
        for name, tensor in tensors.items()
    }
    save_file(tensors | again, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match="stand for one tensor of the base"):
        copied(f"{base}+{adapter}", tmp_path / "out")


def test_an_adapter_that_does_not_fit_says_what_is_near_and_what_to_do(tmp_path):
    from tests.conformance.test_lora import KINDS, make_adapter

    base = make_base(tmp_path / "base")
    shallow = make_base(tmp_path / "shallow" / "base", num_hidden_layers=1)
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    for trained, hint in (
        ("Qwen/Qwen2-7B", "it was trained on `Qwen/Qwen2-7B`: give that as the base"),
        (str(base), "another size or version"),
        ("", "another size or version"),
    ):
        path = adapter / "adapter_config.json"
        config = json.loads(path.read_text()) | {"base_model_name_or_path": trained}
        path.write_text(json.dumps(config))
        with pytest.raises(InputError) as found:
            copied(f"{shallow}+{adapter}", tmp_path / "out")
        assert "changes `model.layers.1.mlp.down_proj.weight`" in found.value.message
        assert "7 of its 14 tensors are not there" in found.value.message
        assert "the nearest there is `model.layers.0.mlp.down_proj.weight`" in found.value.message
        assert hint in (found.value.hint or "")
