"""Replays of what mergekit and peft wrote, and of what they did not."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mergeplan.config.config import parse_config
from mergeplan.errors import InputError, MergeplanError
from mergeplan.inspection import rerun
from mergeplan.inspection.replay import replay
from mergeplan.planning.planner import build_plan
from tests.conformance.test_lora import LINEAR, make_adapter, make_base, merged_by_peft
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergekit, run_mergeplan

ATTENTION = [f"{letter}_proj" for letter in "qkvo"]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
METHODS = {
    "linear": {"weight": 0.4},
    "ties": {"weight": 0.7, "density": 0.4},
    "slerp": {"t": 0.3},
    "task_arithmetic": {"weight": 0.6},
}


@pytest.fixture(scope="module", params=DTYPES)
def pool(request, tmp_path_factory) -> Path:
    """Three tiny Llamas as transformers saves them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    for number, name in enumerate(("base", "a", "b")):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=96, **sizes, **heads))
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters() if number else ():
                parameter.add_(0.004 * torch.randn(parameter.shape, generator=generator))
        model.to(DTYPES[request.param]).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Path:
    """A base in bfloat16, an adapter, and both merged by peft."""
    folder = tmp_path_factory.mktemp("adapted")
    make_base(folder / "base")
    make_adapter(folder / "base", folder / "adapter", r=4, lora_alpha=8, target_modules=LINEAR)
    merged_by_peft(folder / "base", folder / "adapter", folder / "merged")
    return folder


def config_of(method: str, pool: Path, dtype: str, **changes: float) -> str:
    models = [pool / "a"] if method == "slerp" else [pool / "a", pool / "b"]
    base = None if method == "linear" else pool / "base"
    return config_text(method, models, base=base, parameters=METHODS[method] | changes, dtype=dtype)


@pytest.mark.parametrize("method", METHODS)
def test_what_mergekit_wrote_is_verified_and_with_another_weight_is_not(method, pool, tmp_path):
    dtype = load_tensors(pool / "base")["model.norm.weight"].dtype
    name = str(dtype).removeprefix("torch.")
    text = config_of(method, pool, name)
    run_mergekit(text, tmp_path / "out", copy_tokenizer=False)
    found = replay(tmp_path / "out", parse_config(text))
    assert (found.answer, sum(found.counts.values())) == ("verified", 21), found
    allowed = {"equal", "rounding"}
    if method in ("linear", "task_arithmetic") or (method, name) == ("ties", "float32"):
        allowed = {"equal"}
    elif method == "ties":
        allowed |= {"threshold"}
    assert found.counts.keys() <= allowed, found
    other = {"t": 0.35} if method == "slerp" else {"density": 0.5}
    if method in ("linear", "task_arithmetic"):
        half = config_text(
            "task_arithmetic",
            [pool / "a", pool / "b"],
            base=pool / "base",
            parameters={"weight": 1.2},
            dtype=name,
        )
        found = replay(tmp_path / "out", parse_config(half))
        assert not found.verified
        if method == "task_arithmetic":
            assert found.counts == {"strength": 21}
            assert all(abs(t.factor - 0.5) < 0.01 for t in found.tensors if t.elements > 500)
            assert re.match(r"the factor 0.50?\d? fits all 21: ", found.notes[0])
    else:
        assert not replay(
            tmp_path / "out", parse_config(config_of(method, pool, name, **other))
        ).verified


def by_peft(adapted: Path, out: Path, strength: float, load, save) -> Path:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(adapted / "base", dtype=load)
    model = PeftModel.from_pretrained(model, adapted / "adapter")
    for module in model.modules():
        if isinstance(scaling := getattr(module, "scaling", None), dict):
            scaling.update({name: strength * value for name, value in scaling.items()})
    model.merge_and_unload().to(save).save_pretrained(out)
    return out


@pytest.mark.parametrize("save", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("load", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("strength", [1, 0.5, 0])
def test_what_peft_merged_is_told_from_what_it_did_not(strength, load, save, adapted, tmp_path):
    out = by_peft(adapted, tmp_path / "out", strength, load, save)
    found = replay(out, adapter=adapted / "adapter", base=adapted / "base")
    changed = {one.tensor: one for one in found.tensors if one.status != "equal"}
    assert found.verified == (strength == 1)
    if strength == 1:
        assert set(found.counts) <= {"equal", "rounding"}
        assert load != torch.bfloat16 or not changed
        return
    word = {0.5: "strength", 0: "not applied"}[strength]
    assert found.counts == {word: 14, "equal": 13}
    assert all(name.split(".")[-2] in LINEAR for name in changed)
    if strength:
        assert all(abs(one.factor - 0.5) < 1e-3 for one in changed.values())
    else:
        assert "nothing of this merge was applied" in found.notes[0]


@pytest.mark.parametrize("strength", [1, 0.5, 0])
def test_changes_that_are_smaller_than_a_step_are_told_too(strength, adapted, tmp_path):
    """Where the base itself is within a step of the merge, nearness says nothing."""
    settings = {"r": 4, "lora_alpha": 0.05, "target_modules": LINEAR}
    make_base(tmp_path / "base", hidden_size=96)
    make_adapter(tmp_path / "base", tmp_path / "adapter", **settings)
    out = by_peft(tmp_path, tmp_path / "out", strength, torch.float32, torch.bfloat16)
    found = replay(out, adapter=tmp_path / "adapter", base=tmp_path / "base")
    far = [one for one in found.tensors if (one.ulps or 0) > 1]
    assert not far
    assert found.verified == (strength == 1)
    assert {0: "not applied", 0.5: "strength", 1: "equal"}[strength] in found.counts
    assert all(abs(t.factor - 0.5) < 1e-3 for t in found.tensors if t.factor is not None)


def test_a_base_that_was_rounded_before_its_adapter_came_is_verified(tmp_path):
    """Where a change is no larger than a step, a quarter of the elements are a step away."""
    settings = {"r": 4, "lora_alpha": 0.05, "target_modules": LINEAR}
    make_base(tmp_path / "base", torch.float32, hidden_size=96)
    make_adapter(tmp_path / "base", tmp_path / "adapter", **settings)
    for load, expected in ((torch.float32, {"equal"}), (torch.bfloat16, {"rounding", "equal"})):
        out = by_peft(tmp_path, tmp_path / str(load), 1, load, torch.bfloat16)
        found = replay(out, adapter=tmp_path / "adapter", base=tmp_path / "base")
        assert found.verified, found
        assert set(found.counts) == expected


def test_packed_experts_are_held_against_their_own_part(tmp_path):
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 40}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 3}
    for number, name in enumerate(("base", "a")):
        torch.manual_seed(number)
        MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path / name)
    parameters = {"weight": 0.7, "density": 0.4}
    text = config_text("ties", [tmp_path / "a"], base=tmp_path / "base", parameters=parameters)
    run_mergeplan(text, tmp_path / "out")
    found = replay(tmp_path / "out", parse_config(text))
    assert found.counts == {"equal": len(load_tensors(tmp_path / "base"))}


def verdict_on(adapted: Path, tensors: dict, folder: Path, shards: int = 1, **config):
    stored = json.loads((adapted / "base" / "config.json").read_text())
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_checkpoint(folder, tensors, stored | config, shards)
    return replay(folder, adapter=adapted / "adapter", base=adapted / "base")


def test_an_adapter_that_reached_the_attention_alone(adapted, tmp_path):
    base, merged = load_tensors(adapted / "base"), load_tensors(adapted / "merged")
    mixed = {n: merged[n] if n.split(".")[-2] in ATTENTION else base[n] for n in base}
    found = verdict_on(adapted, mixed, tmp_path / "out")
    assert found.counts == {"not applied": 6, "equal": 21}
    assert all(".mlp." in one.tensor for one in found.tensors[:6])
    assert found.notes == ()


def test_another_base_is_named_as_such(adapted, tmp_path):
    other = {name: tensor + 0.01 for name, tensor in load_tensors(adapted / "merged").items()}
    found = verdict_on(adapted, other, tmp_path / "out")
    assert found.answer == "not verified"
    assert "another base?" in found.notes[-1]
    assert found.tensors[0].status == "unknown"
    distances = [one.relative_l2 for one in found.tensors]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] > 0


def test_one_flipped_bit_is_found(adapted, tmp_path):
    tensors = load_tensors(adapted / "merged")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name].view(torch.int16)[3, 5] ^= 1 << 11
    found = verdict_on(adapted, tensors, tmp_path / "high")
    assert (found.counts, found.tensors[0].tensor) == ({"unknown": 1, "equal": 26}, name)
    assert found.tensors[0].differing == 1
    tensors[name].view(torch.int16)[3, 5] ^= 1 << 11
    tensors[name].view(torch.int16)[3, 5] ^= 1
    found = verdict_on(adapted, tensors, tmp_path / "low")
    assert found.verified
    assert (found.counts, found.tensors[0].differing) == ({"rounding": 1, "equal": 26}, 1)
    strict = {"adapter": adapted / "adapter", "base": adapted / "base", "tolerance_ulp": 0}
    assert not replay(tmp_path / "low", **strict).verified


def test_other_files_and_names_are_the_same_tensors(adapted, tmp_path):
    merged = load_tensors(adapted / "merged")
    assert verdict_on(adapted, merged, tmp_path / "shards", shards=3).counts == {"equal": 27}
    wrapped = {f"base_model.{name}": tensor for name, tensor in merged.items()}
    found = verdict_on(adapted, wrapped, tmp_path / "wrapped")
    assert found.counts == {"equal": 27}
    assert found.tensors[0].found == f"base_model.{found.tensors[0].tensor}"


def test_what_is_missing_added_or_of_another_shape_is_named(adapted, tmp_path):
    tensors = load_tensors(adapted / "merged")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    tensors["model.new.weight"] = torch.ones(3)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    embedding = tensors["model.embed_tokens.weight"]
    padded = torch.cat([embedding, torch.zeros(14, 24, dtype=embedding.dtype)])
    tensors["model.embed_tokens.weight"] = padded
    tensors["model.norm.weight"] = torch.ones(5, dtype=torch.bfloat16)
    found = verdict_on(adapted, tensors, tmp_path / "out")
    told = {one.tensor: (one.status, one.detail) for one in found.tensors[:4]}
    assert told == {
        "model.layers.0.mlp.up_proj.weight": ("missing", ""),
        "model.new.weight": ("extra", ""),
        "model.norm.weight": ("shape", "shape [5], expected [24]"),
        "model.embed_tokens.weight": (
            "shape",
            "shape [64, 24], expected [50, 24]; the first 50 rows: equal",
        ),
    }
    assert not found.verified
    assert "inverse frequencies" in found.notes[-1]


def test_a_model_that_peft_still_wraps_is_called_that(adapted, tmp_path):
    base = load_tensors(adapted / "base")
    inside = {name.replace("_proj.", "_proj.base_layer."): tensor for name, tensor in base.items()}
    found = verdict_on(adapted, inside, tmp_path / "out")
    assert found.counts == {"missing": 20, "extra": 20, "equal": 7}
    assert "saved without being merged" in found.notes[-1]


def test_a_tied_head_may_be_left_out_or_stored_twice(tmp_path):
    make_base(tmp_path / "base", tie_word_embeddings=True)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    make_adapter(tmp_path / "base", tmp_path / "adapter", **settings)
    merged_by_peft(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    once = load_tensors(tmp_path / "merged")
    assert "lm_head.weight" not in once
    assert verdict_on(tmp_path, once, tmp_path / "once").counts == {"equal": 26}
    twice = once | {"lm_head.weight": once["model.embed_tokens.weight"]}
    found = verdict_on(tmp_path, twice, tmp_path / "twice")
    assert found.counts == {"equal": 27}
    assert any("stored there too" in one.detail for one in found.tensors)
    base = load_tensors(tmp_path / "base")
    (tmp_path / "stored").mkdir()
    head = {"lm_head.weight": base["model.embed_tokens.weight"].clone()}
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    save_checkpoint(tmp_path / "stored" / "base", base | head, config)
    found = replay(
        tmp_path / "once", adapter=tmp_path / "adapter", base=tmp_path / "stored" / "base"
    )
    assert found.counts == {"equal": 27}
    assert any("left out there" in one.detail for one in found.tensors)
    other = once | {"lm_head.weight": once["model.embed_tokens.weight"] * 1.5}
    found = verdict_on(tmp_path, other, tmp_path / "other")
    assert (found.tensors[0].tensor, found.tensors[0].status) == ("lm_head.weight", "unknown")


def test_what_cannot_be_replayed_says_why(adapted, tmp_path):
    base, adapter = adapted / "base", adapted / "adapter"
    for out, words in ((base, "an input of the merge"), (adapter, "an adapter, not a merged")):
        with pytest.raises(InputError, match=words):
            replay(out, adapter=adapter, base=base)
    with pytest.raises(InputError, match="either a config or an adapter"):
        replay(base, "c.yml", adapter=adapter)
    merged = (adapted / "merged" / "model.safetensors").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model.safetensors").write_bytes(merged[:-100])
    with pytest.raises(MergeplanError, match=r"cut.*model\.safetensors"):
        replay(tmp_path / "cut", adapter=adapter, base=base)


def test_a_tensor_that_only_mergekits_executor_computes_is_refused(adapted, monkeypatch):
    def planned(*args, **options):
        made = build_plan(*args, **options)
        return dataclasses.replace(made, fallback=SimpleNamespace(tensors=["x"]))

    monkeypatch.setattr(rerun, "build_plan", planned)
    with pytest.raises(InputError, match="`x` is left to mergekit's executor"):
        replay(adapted / "merged", adapter=adapted / "adapter", base=adapted / "base")


def test_random_masks_are_verified_with_their_seed_and_else_one_cannot_tell(tmp_path, adapted):
    text = config_text(
        "dare_ties",
        [adapted / "merged"],
        base=adapted / "base",
        parameters={"weight": 0.7, "density": 0.5},
    )
    run_mergeplan(text, tmp_path / "out", seed=7)
    config = parse_config(text)
    assert replay(tmp_path / "out", parse_config(f"{text}random_seed: 7\n")).counts == {"equal": 27}
    found = replay(tmp_path / "out", config)
    assert (found.answer, found.verified) == ("could not tell", False)
    assert found.counts == {"could not tell": 14, "equal": 13}
    assert "no seed was given" in found.notes[0]
