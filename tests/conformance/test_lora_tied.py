"""Adapters of a head and an embedding that are one matrix: beside peft's `merge_and_unload`."""

import json
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.errors import InputError
from tests.conformance.test_lora import copied, make_adapter, make_base, merged_by_peft
from tests.support.checkpoints import load_tensors
from tests.support.merges import config_text, run_mergeplan

# peft says that merging such adapters has pitfalls: they are what is tried here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Q = {"r": 4, "target_modules": ["q_proj"]}
WITH_EMBEDDING = {"r": 4, "target_modules": ["q_proj", "embed_tokens"]}
MERGED = {
    "the embedding replaced": Q | {"modules_to_save": ["embed_tokens"]},
    "the head replaced": Q | {"modules_to_save": ["lm_head"]},
    "both replaced": Q | {"modules_to_save": ["lm_head", "embed_tokens"]},
    "both replaced and tied": Q
    | {"modules_to_save": ["lm_head", "embed_tokens"], "ensure_weight_tying": True},
    "one replaced and tied": Q | {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    "factors of the embedding": WITH_EMBEDDING,
    "factors of the embedding, the head replaced": WITH_EMBEDDING
    | {"modules_to_save": ["lm_head"]},
    "factors of the head, the embedding replaced": {
        "r": 4,
        "target_modules": ["q_proj", "lm_head"],
        "modules_to_save": ["embed_tokens"],
    },
    "neither": Q,
}
REFUSED = {
    "factors of the head": {"r": 4, "target_modules": ["q_proj", "lm_head"]},
    "factors of both": {"r": 4, "target_modules": ["embed_tokens", "lm_head"]},
    "factors of both, tied": WITH_EMBEDDING | {"ensure_weight_tying": True},
}


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def logits_of(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


@pytest.fixture
def tied(tmp_path) -> Path:
    return make_base(tmp_path / "base", torch.float32, tie_word_embeddings=True)


def equal_to_peft(base: Path, adapter: Path, out: Path) -> None:
    """Tensors, tying and logits are those of peft's merge."""
    theirs = merged_by_peft(base, adapter, out.with_name(f"{out.name}-peft"))
    expected, found = load_tensors(theirs), copied(f"{base}+{adapter}", out)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-7, rtol=1e-6), name
    says = [config_of(folder)["tie_word_embeddings"] for folder in (out, theirs)]
    assert says[0] is says[1]
    assert torch.allclose(logits_of(out), logits_of(theirs), atol=1e-6)


@pytest.mark.parametrize("case", MERGED)
def test_a_tied_embedding_and_its_head_become_what_peft_makes_of_them(case, tied, tmp_path):
    adapter = make_adapter(tied, tmp_path / "adapter", **MERGED[case])
    equal_to_peft(tied, adapter, tmp_path / "out")
    parted = "replaced" in case and "tied" not in case
    assert (HEAD in load_tensors(tmp_path / "out")) is parted
    said = open_checkpoint(f"{tied}+{adapter}").warnings
    assert ["change the head of" in warning for warning in said] == (
        [True] if case == "factors of the embedding" else []
    )


@pytest.mark.parametrize("case", REFUSED)
def test_what_peft_would_add_to_both_is_refused(case, tied, tmp_path):
    """peft #2018: the head's factors end in the embedding too, and the merge is another model."""
    adapter = make_adapter(tied, tmp_path / "adapter", **REFUSED[case])
    with pytest.raises(InputError, match=r"factors of `.*`, which `.*` ties to `.*`") as found:
        copied(f"{tied}+{adapter}", tmp_path / "out")
    assert "untie the base first" in (found.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_untying_the_base_is_a_way_out(tied, tmp_path):
    from safetensors.torch import save_file

    adapter = make_adapter(tied, tmp_path / "adapter", **REFUSED["factors of the head"])
    tensors = load_tensors(tied)
    save_file({**tensors, HEAD: tensors[EMBEDDING].clone()}, tied / "model.safetensors")
    config = config_of(tied) | {"tie_word_embeddings": False}
    (tied / "config.json").write_text(json.dumps(config))
    equal_to_peft(tied, adapter, tmp_path / "out")


def test_weights_saved_beside_an_adapter_stay_tied(tied, tmp_path):
    """`save_embedding_layers` saves both, untrained; peft loads them into the one matrix."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tied, dtype="auto")
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **Q))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    assert any(EMBEDDING in name for name in load_tensors(tmp_path / "adapter"))
    equal_to_peft(tied, tmp_path / "adapter", tmp_path / "out")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True


def small(kind: str, tie: bool | None):
    """A tied model whose embedding has another name, or whose config.json does not say."""
    import transformers as t

    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}
    tied = {} if tie is None else {"tie_word_embeddings": tie}
    if kind == "gemma2":
        return t.Gemma2ForCausalLM(t.Gemma2Config(**sizes, **heads, head_dim=8, **tied))
    if kind == "mamba":
        return t.MambaForCausalLM(t.MambaConfig(**sizes, state_size=4, **tied))
    if kind == "opt":
        opt = {"num_attention_heads": 2, "ffn_dim": 24, "max_position_embeddings": 32}
        return t.OPTForCausalLM(t.OPTConfig(**sizes, **opt, word_embed_proj_dim=16, **tied))
    if kind == "falcon":
        config = t.FalconConfig(**sizes, num_attention_heads=2, **tied)
        return t.FalconForCausalLM(config)
    gpt2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return t.GPT2LMHeadModel(t.GPT2Config(**gpt2, **tied))


KINDS = {
    "gemma2": (["q_proj"], "embed_tokens", "model.embed_tokens.weight"),
    "mamba": (["in_proj"], "embeddings", "backbone.embeddings.weight"),
    "opt": (["q_proj"], "embed_tokens", "model.decoder.embed_tokens.weight"),
    "falcon": (["dense"], "word_embeddings", "transformer.word_embeddings.weight"),
    "gpt2": (["c_attn"], "wte", "transformer.wte.weight"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_old_head_stays_whatever_the_embedding_is_called(kind, tmp_path):
    """Before, the head changed with the embedding, and nothing was said."""
    targets, module, embedding = KINDS[kind]
    torch.manual_seed(0)
    base = tmp_path / "base"
    small(kind, None).save_pretrained(base)
    config = config_of(base)
    config.pop("tie_word_embeddings", None)  # as on the hub
    (base / "config.json").write_text(json.dumps(config))
    stored = load_tensors(base)
    adapter = make_adapter(
        base,
        tmp_path / "adapter",
        r=2,
        target_modules=targets,
        modules_to_save=[module],
        fan_in_fan_out=kind == "gpt2",
    )
    equal_to_peft(base, adapter, tmp_path / "out")
    found = load_tensors(tmp_path / "out")
    assert torch.equal(found[HEAD], stored[embedding])
    assert not torch.equal(found[embedding], stored[embedding])


def test_a_merge_with_a_tied_base_keeps_the_head_of_the_adapter(tied, tmp_path):
    """The base's embedding stands in for its head, and the output unties."""
    adapter = make_adapter(tied, tmp_path / "adapter", **MERGED["the embedding replaced"])
    merged = merged_by_peft(tied, adapter, tmp_path / "peft")
    for model, out in ((f"{tied}+{adapter}", "streamed"), (merged, "stored")):
        text = config_text("task_arithmetic", [model], base=tied, parameters={"weight": 0.5})
        run_mergeplan(text, tmp_path / out)
    streamed, stored = (load_tensors(tmp_path / out) for out in ("streamed", "stored"))
    assert streamed.keys() == stored.keys() >= {EMBEDDING, HEAD}
    for name, tensor in stored.items():
        assert torch.allclose(streamed[name], tensor, atol=1e-7), name
    assert torch.equal(streamed[HEAD], load_tensors(tied)[EMBEDDING])
    assert config_of(tmp_path / "streamed")["tie_word_embeddings"] is False


def test_merges_into_memory_have_the_head_that_is_written(tied, tmp_path):
    """One model takes both kinds in turn, as in a calibration."""
    from transformers import AutoModelForCausalLM

    import mergeplan
    from mergeplan.merging.copies import Copies
    from mergeplan.merging.streaming import Sweep

    own = make_adapter(tied, tmp_path / "own", **MERGED["the embedding replaced"])
    plain = make_adapter(tied, tmp_path / "plain", 1, **Q)
    parameters = {"weight": 0.5}
    configs = []
    for adapter in (own, plain):
        text = config_text(
            "task_arithmetic", [f"{tied}+{adapter}"], base=tied, parameters=parameters
        )
        run_mergeplan(text, tmp_path / f"out-{adapter.name}")
        configs.append(yaml.safe_load(text))
    sweep, copies = Sweep(configs), Copies()
    model = AutoModelForCausalLM.from_pretrained(tied, dtype="auto").eval()
    for number in (0, 1, 0):
        copies.give(sweep, [(number, model)])
        with torch.no_grad():
            found = model(torch.arange(12)[None]).logits
        assert torch.equal(found, logits_of(tmp_path / f"out-{('own', 'plain')[number]}"))
    fresh = AutoModelForCausalLM.from_pretrained(tied, dtype="auto")
    with pytest.raises(InputError, match="has a head of its own") as refused:
        mergeplan.merge_into(fresh, configs[0])
    assert "tie_word_embeddings=False" in (refused.value.hint or "")


def test_a_vocabulary_of_the_adapters_own_is_refused_by_name(tied, tmp_path):
    """transformers #45127, LLaMA-Factory #6749, unsloth: tokens added before training."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tied, dtype="auto")
    model.resize_token_embeddings(53)
    settings = MERGED["both replaced"]
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(InputError, match=r"expected shape \[50, 24\].*found \[53, 24\]") as found:
        copied(f"{tied}+{tmp_path / 'adapter'}", tmp_path / "out")
    assert "resize_token_embeddings" in (found.value.hint or "")
    assert not (tmp_path / "out").exists()
