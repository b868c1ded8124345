"""Merges that mergekit plans and our core executes, held against mergekit's own run."""

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mergeplan.config.config import parse_config
from mergeplan.config.methods import METHODS
from mergeplan.errors import InputError
from mergeplan.inspection.verify import verify
from mergeplan.merging.streaming import stream
from mergeplan.planning.mergekit.process import (
    PlanRequest,
    ask_apart,
    plan_by_mergekit,
    reply,
)
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.plan import MergePlan
from mergeplan.system.memory import anonymous_bytes
from tests.support.checkpoints import load_tensors, weights_of
from tests.support.commands import cli, cli_process
from tests.support.merges import run_mergekit, run_mergeplan
from tests.support.shares import paired

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
    if family == "stablelm":
        return t.StableLmConfig(**sizes, use_qkv_bias=True)
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
    "stablelm": "StableLmForCausalLM",
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

    from mergeplan.planning.mergekit.models import references_of
    from mergeplan.planning.mergekit.repairs import (
        Planner,
        ordered_vocabularies,
        with_whole_prefixes,
    )

    # mergekit keeps models in a set: any order may come, and ours must be one of them.
    monkeypatch.setattr(MergeConfiguration, "referenced_models", references_of)
    known = mergekit.merge.get_architecture_info
    monkeypatch.setattr(
        mergekit.merge, "get_architecture_info", lambda *args: with_whole_prefixes(known(*args))
    )
    monkeypatch.setattr(mergekit.merge, "MergePlanner", Planner)
    text = yaml.safe_dump(data, sort_keys=False)
    run_mergeplan(text, folder / "ours", packed_experts=True)
    with ordered_vocabularies():
        run_mergekit(text, folder / "theirs", **options)
    return folder / "ours", folder / "theirs"


def assert_same(ours: Path, theirs: Path, tolerance: float = 0.0) -> None:
    """Files, tensors, config and tokenizer are the same."""
    from transformers import AutoConfig, AutoTokenizer

    mine = {p.name for p in ours.iterdir()} - {"mergeplan_manifest.json"}
    # mergekit leaves the donor's generation config behind, some of the time.
    rest = {"generation_config.json"}
    assert mine - rest == {p.name for p in theirs.iterdir()} - rest
    expected = load_tensors(theirs)
    found = load_tensors(ours)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        difference = (found[name].double() - tensor.double()).abs()
        assert difference.max() <= tolerance * tensor.double().abs().max(), name
    configs = [AutoConfig.from_pretrained(p).to_dict() for p in (ours, theirs)]
    # Where tokens get other numbers, mergekit leaves those of the roles; see the test below.
    plain = [{k: v for k, v in c.items() if not k.endswith("_token_id")} for c in configs]
    for config in plain:
        config.pop("_name_or_path", None)
    assert plain[0] == plain[1]
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


def test_layers_of_other_architectures(tmp_path, monkeypatch):
    base, a, b = family_of(tmp_path, "bert")
    slices = [
        {"sources": [{"model": str(a), "layer_range": [0, 2]}]},
        {"sources": [{"model": str(b), "layer_range": [1, 2]}], "parameters": {"scale": 0.5}},
    ]
    config = {"merge_method": "passthrough", "slices": slices, "base_model": str(base)}
    ours, theirs = run_both(tmp_path, monkeypatch, config)
    assert_same(ours, theirs)
    assert "encoder.layer.2.output.dense.weight" in load_tensors(ours)


def stacked(model: Any, folder: Path) -> dict[str, Any]:
    """The layers of a model, and its last one again."""
    model.save_pretrained(folder)
    save_tokenizer(folder, WORDS)
    layers = [{"sources": [{"model": str(folder), "layer_range": r}]} for r in ([0, 2], [1, 2])]
    return {"merge_method": "passthrough", "slices": layers}


def test_slices_that_mergekit_plans_count_their_layers(tmp_path):
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 16, "num_hidden_layers": 2}
    model = OPTForCausalLM(OPTConfig(**sizes, num_attention_heads=2, vocab_size=24))
    text = yaml.safe_dump(stacked(model, tmp_path / "opt"))
    run_mergeplan(text, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 3


def test_slices_of_which_mergekit_leaves_tensors_out_are_refused(tmp_path):
    from transformers import FalconConfig, FalconForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 24}
    model = FalconForCausalLM(FalconConfig(**sizes, new_decoder_architecture=False))
    text = yaml.safe_dump(stacked(model, tmp_path / "falcon"))
    with pytest.raises(InputError, match=r"leaves out tensor `transformer\.h\.0\.input_layernorm"):
        run_mergeplan(text, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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


TOKENIZERS: dict[str, dict[str, Any]] = {
    "union": {"tokenizer_source": "union"},
    "base": {"tokenizer_source": "base"},
    "one of them": {"tokenizer_source": "{a}"},
    "padded": {"tokenizer": {"source": "union", "pad_to_multiple_of": 16}},
    "tokens": {
        "tokenizer": {
            "source": "union",
            "tokens": {
                "cat": {"source": "{a}", "force": True},
                "dog": {"source": {"kind": "zero"}, "force": True},
                "<|a|>": {"source": {"kind": "model_token", "model": "{b}", "token": "mat"}},
                "<|b|>": {"source": {"kind": "model_token", "model": "{base}", "token_id": 3}},
            },
        }
    },
}


def with_vocabularies(folder: Path, **options: Any) -> dict[str, str]:
    """Three models whose vocabularies differ in size, order and special tokens."""
    base, a, b = family_of(folder, "llama", **options)
    save_tokenizer(base, WORDS, ["<|s|>"])
    save_tokenizer(a, [*WORDS[::-1], "extra"], ["<|s|>", "<|a|>"])
    save_tokenizer(b, [*WORDS[3:], "extra", "more", "most"], ["<|s|>", "<|b|>"])
    return {"base": str(base), "a": str(a), "b": str(b)}


def filled(value: Any, names: dict[str, str]) -> Any:
    """A part of a config with the names of the models put in."""
    if isinstance(value, dict):
        return {key: filled(entry, names) for key, entry in value.items()}
    return value.format(**names) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("case", "tied", "dtype"),
    paired(list(TOKENIZERS), [True, False], [torch.float32, torch.bfloat16]),
    ids=str,
)
def test_vocabularies_are_brought_together(case, tied, dtype, tmp_path, monkeypatch):
    names = with_vocabularies(tmp_path, tied=tied, dtype=dtype)
    config = {
        "merge_method": "linear",
        "base_model": names["base"],
        "models": [
            {"model": names[name], "parameters": {"weight": weight}}
            for name, weight in (("base", 0.25), ("a", 0.5), ("b", 0.25))
        ],
        **filled(TOKENIZERS[case], names),
    }
    ours, theirs = run_both(tmp_path, monkeypatch, config)
    # Padding is the mean of all rows, which torch sums in another order.
    close = 1e-6 if dtype == torch.float32 else 2**-7
    assert_same(ours, theirs, close if case == "padded" else 0.0)


def test_tokens_keep_their_roles_under_new_numbers(tmp_path):
    names = with_vocabularies(tmp_path)
    for name in ("config.json", "generation_config.json"):
        path = Path(names["base"]) / name
        roles = {"eos_token_id": [2, 3], "bos_token_id": 1}
        path.write_text(json.dumps({**json.loads(path.read_text()), **roles}))
    paths = [Path(name) for name in names.values()]
    config = linear_of(paths, base_model=names["base"], tokenizer_source=names["a"])
    run_mergeplan(yaml.safe_dump(config), tmp_path / "out")
    before, after = (vocabulary_of(path) for path in (Path(names["base"]), tmp_path / "out"))
    assert before != after
    for name in ("config.json", "generation_config.json"):
        found = json.loads((tmp_path / "out" / name).read_text())
        assert [after[one] for one in found["eos_token_id"]] == [before[2], before[3]]
        assert after[found["bos_token_id"]] == before[1]


# What transformers' Mllama has, CPM-Ant, and BART.
ROWS_THAT_STAY = {
    "rows beyond the tokens": (
        "model.embed_tokens.weight",
        (32, 16),
        "32 rows.*vocab_size.* is 24",
    ),
    "an unknown embedding": (
        "model.input_embedding.weight",
        (24, 16),
        "no embedding that is known",
    ),
    "values across": ("final_logits_bias", (1, 24), "seems to have values for each token"),
}


@pytest.mark.parametrize("case", ROWS_THAT_STAY)
def test_rows_that_cannot_be_moved_are_merged_where_no_token_moves(case, tmp_path):
    name, shape, reason = ROWS_THAT_STAY[case]
    paths = family_of(tmp_path, "llama", tied=True)
    for seed, path in enumerate(paths):
        tensors = load_tensors(path)
        if name != "final_logits_bias":
            del tensors["model.embed_tokens.weight"]
        tensors[name] = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        save_file(tensors, path / "model.safetensors")
    plain = linear_of(paths, base_model=str(paths[0]))
    text = yaml.safe_dump({**plain, "tokenizer_source": "base"})
    run_mergeplan(text, tmp_path / "named")
    run_mergeplan(yaml.safe_dump(plain), tmp_path / "plain")
    assert weights_of(tmp_path / "named") == weights_of(tmp_path / "plain")
    save_tokenizer(paths[1], WORDS[::-1])
    with pytest.raises(InputError, match=reason):
        run_mergeplan(text, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("head", "moves"),
    [
        ("output_layer.weight", True),
        ("lm_loss.weight", True),
        ("lm_head.bias", True),
        ("value_of_tokens.weight", False),
        ("model.embed_tokens_per_layer.weight", False),
    ],
)
def test_rows_of_every_name_move_or_the_merge_is_refused(head, moves, tmp_path):
    names = with_vocabularies(tmp_path)
    paths = [Path(name) for name in names.values()]
    for path in paths:
        tensors = load_tensors(path)
        rows = tensors["model.embed_tokens.weight"].shape[0]
        value = torch.arange(rows, dtype=torch.float32)
        tensors[head] = value if head.endswith("bias") else value[:, None].repeat(1, 16)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = linear_of(paths, base_model=names["base"], tokenizer_source=names["a"])
    text = yaml.safe_dump(config)
    if not moves:
        with pytest.raises(InputError, match=f"`{head}` seems to have values for each token"):
            run_mergeplan(text, tmp_path / "out")
        return
    run_mergeplan(text, tmp_path / "out")
    merged = load_tensors(tmp_path / "out")
    assert merged[head].shape[0] == merged["model.embed_tokens.weight"].shape[0] != rows


def test_a_config_without_a_number_of_tokens_gets_one(tmp_path):
    names = with_vocabularies(tmp_path)
    paths = [Path(name) for name in names.values()]
    for path in paths:
        config = json.loads((path / "config.json").read_text())
        del config["vocab_size"]
        (path / "config.json").write_text(json.dumps(config))
    run_mergeplan(
        yaml.safe_dump(linear_of(paths, base_model=names["base"], tokenizer_source=names["a"])),
        tmp_path / "out",
    )
    rows = load_tensors(tmp_path / "out")["lm_head.weight"].shape[0]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == rows


def vocabulary_of(folder: Path) -> dict[int, str]:
    data = json.loads((folder / "tokenizer.json").read_text())
    return {number: token for token, number in data["model"]["vocab"].items()}


def linear_of(paths: list[Path], **top: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": listed(paths, weight=0.5), **top}


def test_vocabularies_are_cut_to_the_smallest(tmp_path):
    long = save_model(tmp_path / "long", "llama", 1, vocabulary=30)
    short = save_model(tmp_path / "short", "llama", 2, vocabulary=24)
    text = yaml.safe_dump(linear_of([long, short]))
    for name, run in (("ours", run_mergeplan), ("theirs", run_mergekit)):
        run(text, tmp_path / name, unsafe_truncate_embeddings=True)
    ours, theirs = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    assert ours["lm_head.weight"].shape == ours["model.embed_tokens.weight"].shape == (24, 16)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    # mergekit leaves the donor's number there, perhaps 30, and the output does not load.
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["vocab_size"] == 24


def test_vocabularies_that_differ_are_refused_with_the_remedy(tmp_path):
    long = save_model(tmp_path / "long", "llama", 1, vocabulary=30)
    short = save_model(tmp_path / "short", "llama", 2, vocabulary=24)
    text = yaml.safe_dump(linear_of([long, short]))
    with pytest.raises(InputError, match=r"expected shape \[30, 16\].*found \[24, 16\]") as caught:
        plan_by_mergekit(parse_config(text), seed=0, max_shard_bytes=1 << 40)
    assert "tokenizer_source" in caught.value.hint


def refusal_of(run: Callable[[], object]) -> str | None:
    """What a run that is refused says."""
    try:
        run()
    except ValueError as error:
        return str(error)
    return None


# See docs/agreement.md.
CLOSE = {"slerp": 1e-6, "model_stock": 1e-6, "karcher": 1e-6}


@pytest.mark.parametrize(
    ("method", "lacking"),
    paired(
        ["linear", "slerp", "nearswap", "model_stock", "karcher"], [["a"], ["base"], ["a", "b"]]
    ),
    ids=str,
)
def test_weights_that_some_models_lack(method, lacking, tmp_path):
    several = method in ("linear", "model_stock", "karcher")
    paths = family_of(tmp_path, "stablelm", 3 if several else 2)
    models = {path.name: path for path in paths}
    for name in {*lacking} & {*models}:
        path = models[name] / "model.safetensors"
        kept = {k: v for k, v in load_tensors(models[name]).items() if "q_proj.bias" not in k}
        save_file(kept, path, metadata={"format": "pt"})
    config: dict[str, Any] = {
        "merge_method": method,
        "modules": {"default": {"models": [{"model": str(path)} for path in models.values()]}},
    }
    if method != "karcher":
        config["base_model"] = str(models["base"])
    if method in ("linear", "slerp", "nearswap"):
        config["parameters"] = {"weight": 0.4} if method == "linear" else {"t": 0.3}
    text = yaml.safe_dump(config)
    mine = refusal_of(lambda: run_mergeplan(text, tmp_path / "ours"))
    his = refusal_of(lambda: run_mergekit(text, tmp_path / "theirs"))
    if his is None and set(load_tensors(tmp_path / "theirs")) < set(load_tensors(paths[-1])):
        assert "mergekit's plan leaves out tensor `model.layers.0.self_attn.q_proj.bias`" in mine
    elif his is None:
        assert_same(tmp_path / "ours", tmp_path / "theirs", CLOSE.get(method, 0.0))
    else:
        assert his in mine


def test_old_names_of_weights_are_found(tmp_path, monkeypatch):
    base, a, b = family_of(tmp_path, "bert")
    renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_tensors(a)
    for new, old in renamed.items():
        tensors = {
            f"bert.{name}".removeprefix("bert.bert.").replace(new, old): tensor
            for name, tensor in tensors.items()
        }
    save_file(tensors, a / "model.safetensors", metadata={"format": "pt"})
    module = {"models": listed([a, b], weight=0.5)}
    config = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "modules": {"default": module},
    }
    assert_same(*run_both(tmp_path, monkeypatch, config))


@pytest.mark.parametrize("template", ["auto", "chatml", "{{ messages[0]['content'] }} and so on"])
@pytest.mark.parametrize("source", [None, "base"])
def test_chat_templates(template, source, tmp_path, monkeypatch):
    base, a, b = family_of(tmp_path, "llama")
    for path in (a, b):
        (path / "chat_template.jinja").write_text("{{ bos_token }}{{ messages }}")
    config = linear_of([base, a, b], base_model=str(base), chat_template=template)
    if source:
        config["tokenizer_source"] = source
    ours, theirs = run_both(tmp_path, monkeypatch, config)
    assert_same(ours, theirs)
    assert (ours / "chat_template.jinja").read_text()


DOUBLE = {"dtype": "float64", "out_dtype": "float32"}


@pytest.mark.parametrize("dtypes", [{"dtype": "float64"}, DOUBLE], ids=["float64", "working"])
def test_what_the_core_cannot_do_mergekit_does(dtypes, tmp_path, monkeypatch):
    base, a, b = family_of(tmp_path, "llama")
    config = {
        "merge_method": "ties",
        "base_model": str(base),
        "models": listed([a, b], weight=0.5, density=0.6),
        **dtypes,
    }
    ours, theirs = run_both(tmp_path, monkeypatch, config)
    assert_same(ours, theirs)
    assert verify(ours).matches


def test_the_report_says_what_went_which_way(tmp_path):
    base, a, b = family_of(tmp_path, "llama")
    text = yaml.safe_dump(linear_of([base, a, b], base_model=str(base), dtype="float64"))
    report = run_mergeplan(text, tmp_path / "out")
    assert report.fallback_bytes == sum(t.nbytes for t in load_tensors(tmp_path / "out").values())
    text = yaml.safe_dump(linear_of([base, a, b], base_model=str(base), tokenizer_source="base"))
    assert run_mergeplan(text, tmp_path / "native").fallback_bytes == 0


def test_a_merge_into_memory_takes_the_vocabularies_too(tmp_path):
    names = with_vocabularies(tmp_path)
    config = linear_of([Path(name) for name in names.values()], tokenizer_source="union")
    text = yaml.safe_dump(config)
    run_mergeplan(text, tmp_path / "out")
    merged = dict(stream(parse_config(text)))
    for name, tensor in load_tensors(tmp_path / "out").items():
        assert torch.equal(merged[name], tensor)
    with pytest.raises(InputError, match="left to mergekit's executor"):
        dict(stream(parse_config(yaml.safe_dump({**config, **DOUBLE}))))


def test_random_masks_of_the_fallback_are_those_of_the_seed(tmp_path):
    base, a, b = family_of(tmp_path, "llama")
    config = {
        "merge_method": "dare_ties",
        "base_model": str(base),
        "models": listed([a, b], weight=0.5, density=0.5),
        **DOUBLE,
    }
    text = yaml.safe_dump(config)
    runs = {
        name: run_mergeplan(text, tmp_path / name, seed=seed) and weights_of(tmp_path / name)
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    }
    assert runs["one"] == runs["again"]
    assert runs["one"] != runs["other"]


def test_a_fallback_beyond_the_memory_limit_is_refused_unless_told(tmp_path):
    base, a, b = family_of(tmp_path, "llama", vocabulary=60_000)
    text = yaml.safe_dump(linear_of([base, a, b], base_model=str(base), dtype="float64"))
    fallback = plan_by_mergekit(parse_config(text), seed=0, max_shard_bytes=1 << 40).fallback
    assert fallback.memory_bytes > 100_000_000  # 960,000 elements, of two models
    limit = anonymous_bytes() + fallback.memory_bytes // 2
    with pytest.raises(InputError, match="mergekit's executor.* too low") as caught:
        run_mergeplan(text, tmp_path / "out", memory_limit=limit)
    assert "--allow-fallback-memory" in caught.value.hint
    assert not (tmp_path / "out").exists()
    run_mergeplan(text, tmp_path / "out", memory_limit=limit, allow_fallback_memory=True)
    assert verify(tmp_path / "out").matches


def test_a_process_of_its_own_plans_the_same_and_hands_back_errors(tmp_path):
    names = with_vocabularies(tmp_path)
    config = linear_of([Path(name) for name in names.values()], tokenizer_source="union")
    request = PlanRequest(yaml.safe_dump(config), PlanOptions(), 3, 1 << 40, False)
    apart = ask_apart(request)
    assert apart.json() == request.plan().json()
    assert apart.companions == request.plan().companions
    for change, kind in (({"tokenizer_source": names["base"]}, MergePlan), (DOUBLE, type(None))):
        answer = io.BytesIO()
        reply(replace(request, text=yaml.safe_dump({**config, **change})), answer)
        assert isinstance(pickle.loads(answer.getvalue()), kind)
    answer = io.BytesIO()
    reply(replace(request, text=yaml.safe_dump({**config, "base_model": "nowhere"})), answer)
    error = pickle.loads(answer.getvalue())
    assert isinstance(error, InputError)
    assert "nowhere" in error.message


@pytest.mark.long
def test_a_plan_is_the_same_in_every_process(tmp_path):
    names = with_vocabularies(tmp_path)
    config = {"merge_method": "karcher", "models": [{"model": n} for n in names.values()]}
    (tmp_path / "c.yml").write_text(yaml.safe_dump({**config, "tokenizer_source": "union"}))
    plans = set()
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed}
        command = ("merge", tmp_path / "c.yml", tmp_path / "out", "--dry-run", "--json")
        done = cli_process(*command, env=environment)
        assert done.returncode == 0, done.stderr
        plans.add(done.stdout)
    assert len(plans) == 1


@pytest.mark.long
def test_a_merge_that_was_killed_goes_on(tmp_path):
    names = with_vocabularies(tmp_path)
    config = linear_of([Path(name) for name in names.values()], base_model=names["base"])
    (tmp_path / "c.yml").write_text(
        yaml.safe_dump({**config, **DOUBLE, "tokenizer_source": "union"})
    )
    kill = {"MERGEPLAN_FAULT": "companions:1:kill"}
    assert cli_process("merge", tmp_path / "c.yml", tmp_path / "out", env=kill).returncode < 0
    done = cli("merge", tmp_path / "c.yml", tmp_path / "out", "--resume")
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "out").matches
    run_mergeplan((tmp_path / "c.yml").read_text(), tmp_path / "undisturbed")
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "undisturbed")


def test_without_mergekit_the_error_names_the_command(tmp_path):
    base, a = family_of(tmp_path, "llama", 2)
    config = linear_of([base, a], tokenizer_source="base")
    (tmp_path / "c.yml").write_text(yaml.safe_dump(config))
    blocked = """
import sys
from importlib import metadata

class Block:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("mergekit", "transformers", "torch"):
            raise ModuleNotFoundError(name)

def version(name, known=metadata.version):
    if name == "mergekit":
        raise metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, Block())
metadata.version = version
from mergeplan.__main__ import main
main()
"""
    command = [sys.executable, "-c", blocked, "merge", tmp_path / "c.yml", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "because of `tokenizer_source`, needs mergekit" in done.stderr
    assert "pip install 'mergeplan[mergekit]'" in done.stderr


def test_another_version_of_mergekit_is_refused(tmp_path, monkeypatch):
    base, a = family_of(tmp_path, "llama", 2)
    config = parse_config(yaml.safe_dump(linear_of([base, a], tokenizer_source="base")))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.2.0")
    with pytest.raises(InputError, match=r"needs mergekit 0\.1\.5, found 0\.2\.0"):
        plan_by_mergekit(config, seed=0, max_shard_bytes=1 << 40)


def test_what_mergekit_refuses_is_an_error_for_people(tmp_path):
    base, a = family_of(tmp_path, "llama", 2)
    other = save_model(tmp_path / "other", "phi3", 1)
    config = linear_of([base, a, other], tokenizer_source="base")
    with pytest.raises(InputError, match="mergekit cannot plan this merge: Must specify --allow-"):
        plan_by_mergekit(parse_config(yaml.safe_dump(config)), seed=0, max_shard_bytes=1 << 40)


def test_every_option_of_mergekits_methods_is_known():
    from mergekit.merge_methods import registered_methods

    for method in registered_methods():
        if method.spec.name in METHODS:
            theirs = {p.name: p.scope != "shared" for p in method.spec.parameters}
            ours = {name: o.per_input for name, o in METHODS[method.spec.name].options.items()}
            assert ours == theirs
