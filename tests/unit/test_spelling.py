"""One tensor, several names: what wraps a model is not part of them."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from mergeplan.checkpoints.spelling import TRUNKS, by_spelling, same_tensor, spelling

LAYER = "layers.0.self_attn.q_proj.weight"
ALIKE = {
    "LLaVA and Gemma3 before and after transformers 4.52": (
        f"language_model.model.{LAYER}",
        f"model.language_model.{LAYER}",
    ),
    "Qwen2-VL before and after": (f"model.{LAYER}", f"model.language_model.{LAYER}"),
    "its tower": ("visual.blocks.0.mlp.fc1.weight", "model.visual.blocks.0.mlp.fc1.weight"),
    "its head": ("lm_head.weight", "language_model.lm_head.weight"),
    "Omni": (f"thinker.model.{LAYER}", f"model.language_model.{LAYER}"),
    "SigLIP in a tower": (
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias",
        "model.vision_tower.encoder.layers.0.mlp.fc1.bias",
    ),
    "GPT-2": ("h.0.attn.c_attn.weight", "transformer.h.0.attn.c_attn.weight"),
    "BERT": ("bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
    "BERT's bias": (
        "bert.encoder.layer.0.output.LayerNorm.beta",
        "encoder.layer.0.output.LayerNorm.bias",
    ),
    "GPT-NeoX": ("gpt_neox.layers.0.attention.dense.weight", "layers.0.attention.dense.weight"),
    "OPT": ("decoder.layers.0.fc1.weight", "model.decoder.layers.0.fc1.weight"),
    "weight normalization": (
        "wav2vec2.encoder.pos_conv_embed.conv.weight_g",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    ),
    "FSDP": (
        "_fsdp_wrapped_module.model.layers.0._fsdp_wrapped_module.self_attn.q_proj.weight",
        f"model.{LAYER}",
    ),
    "torch.compile": (f"_orig_mod.model.{LAYER}", f"model.{LAYER}"),
    "DistributedDataParallel": (f"module.model.{LAYER}", f"model.{LAYER}"),
    "activation checkpointing": (
        "model.layers.0._checkpoint_wrapped_module.self_attn.q_proj.weight",
        f"model.{LAYER}",
    ),
}
APART = {
    "towers and language model": (f"vision_tower.encoder.{LAYER}", f"encoder.{LAYER}"),
    "CLIP's two towers": (f"vision_model.encoder.{LAYER}", f"text_model.encoder.{LAYER}"),
    "encoder and decoder": ("encoder.block.0.layer.0.x", "decoder.block.0.layer.0.x"),
    "two architectures": ("bert.pooler.dense.weight", "roberta.pooler.dense.weight"),
    "embedding and head": ("model.embed_tokens.weight", "lm_head.weight"),
    "gamma of another norm": ("model.layers.0.norm.gamma", "model.layers.0.norm.weight"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_names_of_one_tensor_are_spelled_alike(case):
    one, other = ALIKE[case]
    assert spelling(one) == spelling(other)
    assert same_tensor(one, other)
    assert by_spelling([other, "lm_head.bias"])[spelling(one)] == other


@pytest.mark.parametrize("case", APART)
def test_names_of_two_tensors_are_not_taken_for_one(case):
    assert not same_tensor(*APART[case])


def test_a_spelling_that_two_names_of_a_model_have_says_nothing():
    names = [f"model.{LAYER}", f"language_model.{LAYER}", "lm_head.weight"]
    assert by_spelling(names) == {"lm_head.weight": "lm_head.weight"}


def test_a_name_that_is_a_wrapper_is_kept():
    assert spelling("model.module") == "module"
    assert spelling("") == ""


def test_trunks_are_those_of_the_installed_transformers():
    """Names of towers and halves are no trunks: they stand beside others."""
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    pattern = re.compile(r'^    base_model_prefix(?::\s*str)? = "(\w+)"', re.MULTILINE)
    models = Path(spec.origin).parent / "models"
    found = {
        name
        for path in models.glob("*/modeling_*.py")
        for name in pattern.findall(path.read_text())
    }
    beside = re.compile(
        "encoder|decoder|(vision|text|bert|audio|video|detector|tracker|encoder)_model"
        "|(vision|ctx|question|audio_video)_encoder|span_predictor|talker|vision_tokenizer"
        "|semantic|(coarse|fine)_acoustics"
    )
    wrappers = {name for name in found if spelling(f"{name}.x.y") == "x.y"}
    assert wrappers - {"model", "language_model", "transformer", "timm_model"} <= TRUNKS
    assert {name for name in found - wrappers if not beside.fullmatch(name)} == set()
    assert TRUNKS - found == set()
