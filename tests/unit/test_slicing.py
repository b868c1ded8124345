"""Layers that are taken one by one; `tests/conformance` holds whole merges against mergekit's."""

import json

import pytest
import torch

from mergeplan.config.config import parse_config
from mergeplan.errors import InputError
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import run_mergeplan

LAYERS = 4


@pytest.fixture
def models(tmp_path):
    """`a` and `b`, whose tensors hold the number of their layer, of `b` tenfold."""
    for name, factor in (("a", 1.0), ("b", 10.0)):
        tensors = {
            f"model.layers.{i}.mlp.up_proj.weight": torch.full((2, 2), factor * (i + 1))
            for i in range(LAYERS)
        }
        tensors["model.embed_tokens.weight"] = torch.full((3, 2), factor * 100)
        tensors["model.norm.weight"] = torch.full((2,), factor * 200)
        config = {
            "num_hidden_layers": LAYERS,
            "layer_types": [f"{name}{i}" for i in range(LAYERS)],
            "tie_word_embeddings": True,
        }
        save_checkpoint(tmp_path / name, tensors, config)
    return tmp_path


def sliced(models, *slices: list[tuple[str, int, int]], method="passthrough", more="") -> str:
    lines = [f"merge_method: {method}", "slices:"]
    for piece in slices:
        lines.append("  - sources:")
        for model, first, end in piece:
            lines.append(f"      - {{model: {models / model}, layer_range: [{first}, {end}]}}")
    return "\n".join([*lines, more])


def test_layers_are_stacked_repeated_and_numbered_anew(models):
    text = sliced(models, [("a", 0, 2)], [("b", 1, 3)], [("a", 1, 2)])
    run_mergeplan(text, models / "out")
    found = load_tensors(models / "out")
    values = [float(found[f"model.layers.{i}.mlp.up_proj.weight"][0, 0]) for i in range(5)]
    assert values == [1, 2, 20, 30, 2]
    # What stands before the layers is the first slice's, what stands behind them the last one's.
    assert float(found["model.embed_tokens.weight"][0, 0]) == 100
    assert float(found["model.norm.weight"][0]) == 200
    config = json.loads((models / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 5
    assert config["layer_types"] == ["a0", "a1", "b1", "b2", "a1"]


def test_a_gradient_runs_along_each_slice(models):
    more = f"base_model: {models / 'a'}\nparameters: {{t: [0, 1]}}"
    text = sliced(
        models, [("a", 0, 3), ("b", 0, 3)], [("a", 3, 4), ("b", 3, 4)], method="slerp", more=more
    )
    run_mergeplan(text, models / "out")
    found = load_tensors(models / "out")
    values = [float(found[f"model.layers.{i}.mlp.up_proj.weight"][0, 0]) for i in range(4)]
    # Slerp of parallel tensors is linear; a slice of one layer is at the gradient's end.
    assert values == pytest.approx([1, 11, 30, 40])


REFUSED = {
    "beyond the last layer": ([("a", 2, 5)], "`layer_range` within [0, 4], found [2, 5]"),
    "backwards": ([("a", 2, 1)], "layer_range"),
    "of other lengths": ([("a", 0, 2), ("b", 0, 1)], "expected as many layers from each source"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ranges_that_cannot_be_are_refused_before_anything_is_written(case, models):
    sources, words = REFUSED[case]
    method = "passthrough" if len(sources) == 1 else "linear"
    text = sliced(
        models, sources, method=method, more="parameters: {weight: 1}" * (len(sources) - 1)
    )
    with pytest.raises(InputError) as caught:
        run_mergeplan(text, models / "out")
    assert words in caught.value.message
    assert not (models / "out").exists()


def untied(models, name, **more):
    """A model like `a`, with these tensors and an embedding that is no head."""
    config = {"num_hidden_layers": LAYERS, "tie_word_embeddings": False}
    save_checkpoint(models / name, {**load_tensors(models / "a"), **more}, config)


@pytest.mark.parametrize("donor", ["u", "b"])
def test_a_tied_model_at_the_end_brings_its_embedding_as_a_head(donor, models):
    untied(models, "u", **{"lm_head.weight": torch.full((3, 2), 7.0)})
    text = sliced(models, [("u", 0, 1)], [("b", 1, 2)], more=f"base_model: {models / donor}")
    run_mergeplan(text, models / "out")
    found = load_tensors(models / "out")
    assert float(found["model.embed_tokens.weight"][0, 0]) == 100
    assert float(found["lm_head.weight"][0, 0]) == 1000
    assert not json.loads((models / "out" / "config.json").read_text())["tie_word_embeddings"]


def test_a_model_without_any_head_cannot_end_one_that_needs_it(models):
    untied(models, "u", **{"lm_head.weight": torch.full((3, 2), 7.0)})
    untied(models, "headless")
    with pytest.raises(InputError, match=r"headless`: tensor `lm_head.weight` is missing"):
        run_mergeplan(sliced(models, [("u", 0, 1)], [("headless", 1, 2)]), models / "out")
    assert not (models / "out").exists()


def with_config(models, **keys):
    """The two models, whose config.json has more keys."""
    for name in "ab":
        path = models / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


# Keys before and after the slices [0, 2] and [1, 4]: layers 0, 1, 1, 2, 3.
RENUMBERED = {
    "layers that a list names": ("mlp_only_layers", [1, 3], [1, 2, 4]),
    "layers at the front": ("first_k_dense_replace", 2, 3),
    "none at the front": ("first_k_dense_replace", 0, 0),
    "up to the last": ("moe_layer_end_index", 3, 4),
    "all": ("moe_layer_end_index", -1, 4),
    "every layer": ("decoder_sparse_step", 1, 1),
}


@pytest.mark.parametrize("case", RENUMBERED)
def test_config_tells_the_kinds_of_layers_by_their_new_numbers(case, models):
    key, before, after = RENUMBERED[case]
    with_config(models, **{key: before})
    run_mergeplan(sliced(models, [("a", 0, 2)], [("b", 1, 4)]), models / "out")
    assert json.loads((models / "out" / "config.json").read_text())[key] == after


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("first_k_dense_replace", 1),
        ("moe_layer_end_index", 2),
        ("decoder_sparse_step", 2),
        ("attn_layer_period", 3),
    ],
)
def test_layers_whose_kinds_config_could_not_tell_are_refused(key, value, models):
    with_config(models, **{key: value})
    with pytest.raises(InputError, match=f"`{key}`"):
        run_mergeplan(sliced(models, [("a", 0, 4)], [("a", 0, 3)], [("a", 0, 1)]), models / "out")
    assert not (models / "out").exists()


def test_a_period_does_not_matter_where_a_list_tells_each_layers_kind(models):
    with_config(models, sliding_window_pattern=2)
    run_mergeplan(sliced(models, [("a", 0, 1)], [("a", 2, 3)]), models / "out")
    config = json.loads((models / "out" / "config.json").read_text())
    assert config["layer_types"] == ["a0", "a2"]


def test_what_slices_pass_over_is_said(models):
    added = {"model.mtp.x.weight": torch.ones(2), "model.layers.4.eh_proj.weight": torch.ones(2)}
    tensors = {**load_tensors(models / "a"), **added}
    config = {"num_hidden_layers": LAYERS, "num_nextn_predict_layers": 1}
    save_checkpoint(models / "m", tensors, config)
    merged = run_mergeplan(sliced(models, [("m", 0, 2)]), models / "out")
    manifest = json.loads((models / "out" / "mergeplan_manifest.json").read_text())
    assert set(manifest["left_out"]) == {*added}
    assert any("`model.mtp.x.weight`" in warning for warning in merged.warnings)
    assert not added.keys() & load_tensors(models / "out").keys()
    config = json.loads((models / "out" / "config.json").read_text())
    assert config["num_nextn_predict_layers"] == 0


def test_other_names_than_llamas_are_left_to_mergekit(models):
    save_checkpoint(models / "c", {"transformer.h.0.attn.weight": torch.ones(2, 2)})
    from mergeplan.checkpoints.opening import open_checkpoint
    from mergeplan.planning.slicing import beyond_names

    config = parse_config(sliced(models, [("c", 0, 1)]))
    assert "transformer.h.0.attn.weight" in beyond_names(
        config, [open_checkpoint(str(models / "c"))]
    )
