"""Which tensors belong together: two spellings of one model, and what an output may lack."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mergeplan
from mergeplan.checkpoints.passed_over import reason_to_pass_over
from mergeplan.errors import InputError, SeveralFaultsError
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergeplan

GPT2 = ("wte.weight", "h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight", "ln_f.weight")
BERT = ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight")
GEMMA3 = ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight", "model.layers.0.w.weight")


def filled(names: Any, value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full((3, 2), value + place) for place, name in enumerate(names)}


def renamed(names: Any, *pairs: tuple[str, str]) -> list[str]:
    found = list(names)
    for old, new in pairs:
        found = [new + name.removeprefix(old) if name.startswith(old) else name for name in found]
    return found


@pytest.mark.parametrize(
    ("donors", "others"),
    [
        (GPT2, renamed(GPT2, ("", "transformer."))),
        (renamed(GPT2, ("", "transformer.")), GPT2),
        (BERT, renamed(BERT, ("", "bert."))),
        (renamed(BERT, ("", "bert.")), BERT),
        (
            renamed(GEMMA3, ("model.", "language_model.model.")),
            renamed(
                GEMMA3,
                ("vision_tower.vision_model.", "model.vision_tower."),
                ("model.layers", "model.language_model.layers"),
            ),
        ),
        (GPT2, renamed(GPT2, ("", "_fsdp_wrapped_module.transformer."))),
        (["x.LayerNorm.weight", "x.LayerNorm.bias"], ["x.LayerNorm.gamma", "x.LayerNorm.beta"]),
    ],
    ids=["gpt2", "gpt2 alone", "bert", "bert alone", "gemma3", "fsdp", "gamma"],
)
def test_one_model_in_two_spellings_merges_under_the_donors_names(donors, others, tmp_path):
    base = save_checkpoint(tmp_path / "base", filled(donors, 1.0))
    other = save_checkpoint(tmp_path / "other", filled(others, 3.0))
    text = config_text("linear", [base, other], parameters={"weight": 1})
    run_mergeplan(text, tmp_path / "out")
    found = load_tensors(tmp_path / "out")
    assert {name: float(t[0, 0]) for name, t in found.items()} == {
        name: 2.0 + place for place, name in enumerate(donors)
    }


def test_masks_and_frequencies_that_some_models_carry_are_left_out_and_said(tmp_path):
    mask = {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    frequencies = {"rotary_emb.inv_freq": torch.ones(2)}
    plain = filled(GPT2, 1.0)
    base = save_checkpoint(tmp_path / "base", {**plain, **mask})
    other = save_checkpoint(tmp_path / "other", {**plain, **frequencies})
    report = run_mergeplan(
        config_text("linear", [base, other], parameters={"weight": 1}), tmp_path / "out"
    )
    assert set(load_tensors(tmp_path / "out")) == set(GPT2)
    manifest = json.loads((tmp_path / "out" / "mergeplan_manifest.json").read_text())
    assert set(manifest["left_out"]) == {*mask, *frequencies}
    assert any("inverse frequencies" in warning for warning in report.warnings)
    # A bias of that name that is no mask counts.
    bias = save_checkpoint(tmp_path / "bias", {**plain, "h.0.attn.bias": torch.ones(4)})
    bare = save_checkpoint(tmp_path / "bare", plain)
    text = config_text("linear", [bare, bias], parameters={"weight": 1})
    with pytest.raises(InputError, match=r"`h\.0\.attn\.bias` is missing, which `.*bias` has"):
        run_mergeplan(text, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_layers_behind_the_last_one_may_be_lacking_and_no_others(tmp_path):
    config = {"num_hidden_layers": 2}
    layers = [f"model.layers.{number}.mlp.w.weight" for number in range(3)]
    whole = save_checkpoint(tmp_path / "whole", filled(layers, 1.0), config)
    short = save_checkpoint(tmp_path / "short", filled(layers[:2], 1.0), config)
    text = config_text("linear", [whole, short], parameters={"weight": 1})
    run_mergeplan(text, tmp_path / "out")
    assert set(load_tensors(tmp_path / "out")) == set(layers[:2])
    shorter = save_checkpoint(tmp_path / "shorter", filled(layers[:1], 1.0), config)
    text = config_text("linear", [short, shorter], parameters={"weight": 1})
    with pytest.raises(InputError, match=r"`model\.layers\.1\.mlp\.w\.weight` is missing"):
        run_mergeplan(text, tmp_path / "no")


def test_a_towers_layers_count_however_many_the_text_has():
    config = {"text_config": {"num_hidden_layers": 2}}
    tower = "model.vision_tower.encoder.layers.7.fc1.weight"
    assert reason_to_pass_over(tower, (4, 4), config) is None
    assert reason_to_pass_over("model.language_model.layers.7.w.weight", (4, 4), config)


def test_what_every_model_has_is_merged_whatever_it_is(tmp_path):
    tensors = {**filled(GPT2, 1.0), "mtp.0.w.weight": torch.ones(2)}
    paths = [save_checkpoint(tmp_path / name, tensors) for name in "ab"]
    run_mergeplan(config_text("linear", paths, parameters={"weight": 1}), tmp_path / "out")
    assert set(load_tensors(tmp_path / "out")) == set(tensors)


def test_a_config_that_counts_more_than_the_output_has_is_refused_or_said(tmp_path):
    tensors = {"model.embed_tokens.weight": torch.ones(6, 2), "model.layers.0.w": torch.ones(2)}
    for name, counted in (("a", {"vocab_size": 7}), ("b", {"num_hidden_layers": 3})):
        save_checkpoint(tmp_path / name, tensors, {**counted, "tie_word_embeddings": True})
    text = config_text("passthrough", [tmp_path / "a"])
    with pytest.raises(InputError, match="`vocab_size` of at most 6, the rows of `model.embed"):
        run_mergeplan(text, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = run_mergeplan(config_text("passthrough", [tmp_path / "b"]), tmp_path / "out")
    assert any("`num_hidden_layers` is 3, and the output has 1" in w for w in report.warnings)
    config = {"tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"]}
    save_checkpoint(tmp_path / "c", tensors, config)
    report = run_mergeplan(config_text("passthrough", [tmp_path / "c"]), tmp_path / "headless")
    assert any("ties no head to the embedding" in warning for warning in report.warnings)


def test_masks_of_two_dtypes_and_positions_of_two_lengths_are_left_out(tmp_path):
    plain = filled(GPT2, 1.0)
    odd = "h.0.attn.bias", "embeddings.position_ids"
    floats = {odd[0]: torch.ones(1, 1, 4, 4), odd[1]: torch.arange(4)}
    bools = {odd[0]: torch.ones(1, 1, 4, 4).bool(), odd[1]: torch.arange(6)}
    a = save_checkpoint(tmp_path / "a", {**plain, **floats})
    b = save_checkpoint(tmp_path / "b", {**plain, **bools})
    run_mergeplan(config_text("linear", [a, b], parameters={"weight": 1}), tmp_path / "out")
    assert set(load_tensors(tmp_path / "out")) == set(GPT2)


def test_a_tensor_of_two_shapes_is_refused_or_left_out_by_its_own_name(tmp_path):
    plain = filled(GPT2, 1.0)
    a = save_checkpoint(tmp_path / "a", {**plain, "x[0].weight": torch.ones(2)})
    b = save_checkpoint(tmp_path / "b", {**plain, "x[0].weight": torch.ones(3)})
    text = config_text("linear", [a, b], parameters={"weight": 1})
    with pytest.raises(InputError, match="expected shape"):
        run_mergeplan(text, tmp_path / "out")
    run_mergeplan(text, tmp_path / "out", allow_left_out=("x[0].weight",))
    assert set(load_tensors(tmp_path / "out")) == set(GPT2)


def test_hints_name_all_that_is_lacking_in_a_few_patterns(tmp_path):
    layers = {f"h.{number}.new.weight": torch.ones(2) for number in range(3)}
    bias = {"cls.predictions.decoder.bias": torch.ones(2)}
    a = save_checkpoint(tmp_path / "a", {**filled(GPT2, 1.0), **layers, **bias})
    b = save_checkpoint(tmp_path / "b", filled(GPT2, 1.0))
    text = config_text("linear", [a, b], parameters={"weight": 1})
    with pytest.raises(InputError, match="and 2 more like it") as caught:
        run_mergeplan(text, tmp_path / "out")
    assert "`--allow-left-out 'h.*.new.weight'`" in caught.value.hint
    patterns = ("h.*.new.weight", "nothing.*")
    report = run_mergeplan(text, tmp_path / "out", allow_left_out=patterns)
    assert set(load_tensors(tmp_path / "out")) == set(GPT2)
    assert any("`--allow-left-out nothing.*` leaves nothing out" in w for w in report.warnings)


def test_packed_experts_beside_unpacked_ones_are_said_to_be_that(tmp_path):
    one = {f"h.0.mlp.experts.{number}.up_proj.weight": torch.ones(2, 2) for number in range(2)}
    packed = {"h.0.mlp.experts.up_proj": torch.ones(2, 2, 2)}
    paths = [save_checkpoint(tmp_path / n, t) for n, t in (("a", one), ("b", packed))]
    with pytest.raises(InputError) as caught:
        run_mergeplan(config_text("linear", paths, parameters={"weight": 1}), tmp_path / "out")
    assert "one model has its experts packed" in caught.value.hint


def test_what_a_model_computes_beside_its_tensors_is_compared(tmp_path):
    for name, used in (("a", 2), ("b", 4)):
        config = {"num_experts_per_tok": used, "rms_norm_eps": 1e-6 * used}
        save_checkpoint(tmp_path / name, filled(GPT2, 1.0), config)
    text = config_text("linear", [tmp_path / "a", tmp_path / "b"], parameters={"weight": 1})
    warnings = "\n".join(run_mergeplan(text, tmp_path / "out").warnings)
    assert "`num_experts_per_tok` is 2 in" in warnings
    assert "`rms_norm_eps` is 2e-06 in" in warnings


@pytest.mark.parametrize("with_base", [True, False])
def test_an_odd_model_is_at_fault_and_not_those_that_fit_each_other(with_base, tmp_path):
    names = GPT2[1:]
    plain = filled(names, 1.0)
    wide = {name: torch.ones(5, 2) for name in names}
    models = {"odd": {**wide, "more.weight": torch.ones(2)}, "a": plain, "b": plain, "c": plain}
    models["less"] = {name: plain[name] for name in names[1:]}
    paths = {name: save_checkpoint(tmp_path / name, tensors) for name, tensors in models.items()}
    given = {"base_model": str(paths.pop("b"))} if with_base else {}
    text = config_text("linear", list(paths.values()), parameters={"weight": 1}, **given)
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(SeveralFaultsError) as caught:
        mergeplan.merge(tmp_path / "c.yml", tmp_path / "out")
    faults = caught.value.faults
    assert sorted(Path(one.about).name for one in faults) == ["less", "odd", "odd"]
    said = [(one.message, one.hint, one.line) for one in faults]
    assert any(f"expected shape [3, 2] as in `{tmp_path}" in message for message, *_ in said)
    assert any("tensor `more.weight` is one that `" in message for message, *_ in said)
    assert any("and 2 more like it" in message for message, *_ in said)
    checked = mergeplan.check(tmp_path / "c.yml").faults
    assert {(one.message, one.hint, one.line) for one in checked} == set(said)
    problems = mergeplan.inspect(tmp_path / "c.yml").merges[0].problems
    assert len(problems) == len(names) + 2


def test_a_base_decides_against_all_others(tmp_path):
    names = GPT2[1:]
    plain, wide = filled(names, 1.0), {name: torch.ones(5, 2) for name in names}
    base = save_checkpoint(tmp_path / "base", wide)
    paths = [save_checkpoint(tmp_path / name, plain) for name in "abc"]
    text = config_text("linear", paths, base_model=str(base), parameters={"weight": 1})
    with pytest.raises(SeveralFaultsError) as caught:
        run_mergeplan(text, tmp_path / "out")
    assert [one.about for one in caught.value.faults] == list(map(str, paths))
