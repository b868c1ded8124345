"""Merges that mergekit plans and our core executes, held against mergekit's own run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import load_tensors, run_mergekit, run_mergeplan
from mergeplan.errors import InputError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "far", "away"]


def make_config(family: str, vocabulary: int, tied: bool) -> Any:
    import transformers as t

    sizes = {**SIZES, "vocab_size": vocabulary, "tie_word_embeddings": tied}
    if family == "whisper":
        return t.WhisperConfig(
            vocab_size=vocabulary,
            d_model=16,
            encoder_layers=2,
            decoder_layers=3,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            num_mel_bins=8,
            max_source_positions=20,
            max_target_positions=12,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        )
    if family == "bert":
        del sizes["num_key_value_heads"]
        return t.BertConfig(**sizes, max_position_embeddings=32)
    if family == "mixtral":
        return t.MixtralConfig(**sizes, num_local_experts=3)
    if family == "qwen3_moe":
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
        return t.Qwen3MoeConfig(**sizes, **experts, head_dim=8)
    if family == "glm4_moe":
        experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
        return t.Glm4MoeConfig(**sizes, **experts, head_dim=8, first_k_dense_replace=1)
    if family == "gemma2":
        return t.Gemma2Config(**sizes, head_dim=8)
    if family == "phi3":
        return t.Phi3Config(**sizes, pad_token_id=0)
    return {"llama": t.LlamaConfig, "qwen2": t.Qwen2Config}[family](**sizes)


CLASSES = {
    "whisper": "WhisperForConditionalGeneration",
    "bert": "BertModel",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}


def save_model(
    folder: Path,
    family: str,
    seed: int,
    *,
    vocabulary: int = 24,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A model near the others of its family, as transformers saves it."""
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, CLASSES[family])(make_config(family, vocabulary, tied))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    model.to(dtype).save_pretrained(folder)
    save_tokenizer(folder, WORDS)
    return folder


def save_tokenizer(folder: Path, words: list[str], special: list[str] | None = None) -> None:
    """A tokenizer of whole words."""
    import transformers

    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special or []])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.save_pretrained(folder)


def family_of(folder: Path, family: str, count: int = 3, **options: Any) -> list[Path]:
    """Some models of one architecture; the first is the base."""
    names = ["base", "a", "b"][:count]
    return [save_model(folder / n, family, seed, **options) for seed, n in enumerate(names)]


def run_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], **options: Any
) -> tuple[Path, Path]:
    """Our output and mergekit's, which is mended where it would fail."""
    import mergekit.merge
    from mergekit.config import MergeConfiguration

    from mergeplan.mergekit_adapter.models import references_of
    from mergeplan.mergekit_adapter.repairs import Planner, with_whole_prefixes

    # mergekit keeps models in a set: any order may come, and ours must be one of them.
    monkeypatch.setattr(MergeConfiguration, "referenced_models", references_of)
    known = mergekit.merge.get_architecture_info
    monkeypatch.setattr(
        mergekit.merge, "get_architecture_info", lambda *args: with_whole_prefixes(known(*args))
    )
    monkeypatch.setattr(mergekit.merge, "MergePlanner", Planner)
    text = yaml.safe_dump(data, sort_keys=False)
    run_mergeplan(text, folder / "ours")
    run_mergekit(text, folder / "theirs", **options)
    return folder / "ours", folder / "theirs"


def assert_same(ours: Path, theirs: Path, tolerance: float = 0.0) -> None:
    """Files, tensors, config and tokenizer are the same."""
    from transformers import AutoConfig, AutoTokenizer

    mine = {p.name for p in ours.iterdir()} - {"mergeplan_manifest.json"}
    assert mine == {p.name for p in theirs.iterdir()}
    expected = load_tensors(theirs)
    found = load_tensors(ours)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        difference = (found[name].double() - tensor.double()).abs()
        assert difference.max() <= tolerance * tensor.double().abs().max(), name
    configs = [AutoConfig.from_pretrained(p).to_dict() for p in (ours, theirs)]
    for config in configs:
        config.pop("_name_or_path", None)
    assert configs[0] == configs[1]
    if (theirs / "tokenizer.json").exists():
        mine, his = (AutoTokenizer.from_pretrained(p) for p in (ours, theirs))
        assert mine.get_vocab() == his.get_vocab()
        assert mine.special_tokens_map == his.special_tokens_map
        assert mine.chat_template == his.chat_template


def listed(paths: list[Path], **parameters: Any) -> list[dict[str, Any]]:
    return [{"model": str(path), "parameters": parameters} for path in paths]


LINEAR = {"merge_method": "linear", "parameters": {"normalize": True}}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "phi3", "bert"])
def test_architectures_by_modules(family, tmp_path, monkeypatch):
    base, *experts = family_of(tmp_path, family)
    module = {"models": listed(experts, weight=[0.2, 0.9], density=0.6)}
    config = {
        "merge_method": "ties",
        "base_model": str(base),
        "modules": {"default": module},
        "parameters": {"lambda": [{"filter": "mlp", "value": 0.5}, {"value": 0.9}]},
    }
    assert_same(*run_both(tmp_path, monkeypatch, config))


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "glm4_moe"])
def test_experts_are_packed_as_the_model_has_them(family, tmp_path, monkeypatch):
    base, *experts = family_of(tmp_path, family)
    config = {
        "merge_method": "ties",
        "base_model": str(base),
        "modules": {"default": {"models": listed(experts, weight=0.5, density=0.6)}},
    }
    ours, theirs = run_both(tmp_path, monkeypatch, config)
    assert_same(ours, theirs)
    packed = [name for name in load_tensors(ours) if name.endswith("experts.gate_up_proj")]
    assert packed


def test_modules_of_their_own(tmp_path, monkeypatch):
    base, *experts = family_of(tmp_path, "whisper")
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "modules": {
            "decoder": {"models": listed(experts, weight=[0.1, 0.5])},
            "encoder": {
                "slices": [
                    {"sources": [{**entry, "layer_range": [0, 2]} for entry in listed(experts)]}
                ],
                "parameters": {"weight": 0.3},
            },
        },
        "parameters": {"lambda": 0.7},
    }
    for source in config["modules"]["encoder"]["slices"][0]["sources"]:
        del source["parameters"]
    config["modules"]["encoder"]["slices"][0]["sources"].append(
        {"model": str(base), "layer_range": [0, 2]}
    )
    assert_same(*run_both(tmp_path, monkeypatch, config))
