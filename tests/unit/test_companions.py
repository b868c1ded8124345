"""What lies beside the weights: config.json, tokenizer, model card."""

import json
from pathlib import Path

import pytest
import yaml

from mergeplan.checkpoints.names import hub_ids
from mergeplan.config.config import parse_config
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergekit, run_mergeplan


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture
def marked(small_models) -> Path:
    """`small_models`, each with a config and a tokenizer that say whose they are."""
    for name in ("base", "a", "b"):
        folder = small_models / name
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "whose": name}))
        for file in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
            (folder / file).write_text(json.dumps(name))
    return small_models


def test_without_a_base_the_first_model_gives_config_and_tokenizer(marked):
    for number, order in enumerate((["b", "a"], ["a", "b"])):
        text = config_text("linear", [marked / name for name in order], parameters={"weight": 1})
        out = marked / f"out{number}"
        run_mergeplan(text, out)
        assert config_of(out)["whose"] == order[0]
        assert json.loads((out / "tokenizer.json").read_text()) == order[0]


def test_a_base_gives_config_and_tokenizer_wherever_it_stands(marked):
    models = [marked / "a", marked / "base", marked / "b"]
    text = config_text("linear", models, base=marked / "base", parameters={"weight": 1})
    run_mergeplan(text, marked / "out")
    assert config_of(marked / "out")["whose"] == "base"
    for file in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert json.loads((marked / "out" / file).read_text()) == "base"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_config_json_says_the_tensors_dtype_in_the_donors_spelling(key, marked):
    (marked / "base" / "config.json").write_text(json.dumps({key: "float16"}))
    models = [marked / "a", marked / "b"]
    text = config_text("linear", models, base=marked / "base", parameters={"weight": 1})
    run_mergeplan(text, marked / "out")
    assert config_of(marked / "out") == {key: "float32"}


@pytest.mark.parametrize("said", [True, None], ids=["tied", "silent"])
@pytest.mark.parametrize("parted", [True, False], ids=["parted", "equal"])
def test_a_head_that_parts_from_its_embedding_is_untied(said, parted, tmp_path):
    import torch

    embedding = torch.arange(12.0).reshape(4, 3)
    tensors = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.clone()}
    config = {"model_type": "llama"}
    if said is not None:
        config["tie_word_embeddings"] = said
    for name, factor in (("a", 1.0), ("b", 3.0)):
        moved = {key: factor * value for key, value in tensors.items()}
        save_checkpoint(tmp_path / name, moved, config)
    weight = [{"filter": "lm_head", "value": 0.2}, {"value": 1.0}] if parted else 1.0
    text = config_text(
        "linear",
        [tmp_path / "a", tmp_path / "b"],
        per_model=[{"weight": 1.0}, {"weight": weight}],
    )
    run_mergeplan(text, tmp_path / "out")
    merged = load_tensors(tmp_path / "out")
    equal = torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    assert equal is not parted
    assert config_of(tmp_path / "out").get("tie_word_embeddings") == (False if parted else said)


def test_a_config_that_ties_another_head_than_the_one_that_is_stored_stays(tmp_path):
    import torch

    config = {"model_type": "luke", "tie_word_embeddings": True}
    for name, value in (("a", 1.0), ("b", 3.0)):
        tensors = {
            "embeddings.word_embeddings.weight": torch.full((4, 3), value),
            "lm_head.weight": torch.full((4, 3), value + 1),
        }
        save_checkpoint(tmp_path / name, tensors, config)
    text = config_text("linear", [tmp_path / "a", tmp_path / "b"], parameters={"weight": 1})
    run_mergeplan(text, tmp_path / "out")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_the_card_names_method_models_and_seed(small_models):
    models = [small_models / "a", small_models / "b"]
    text = config_text("dare_linear", models, base=small_models / "base", parameters={"weight": 1})
    run_mergeplan(text, small_models / "out", seed=17)
    card = (small_models / "out" / "README.md").read_text()
    assert "[Linear DARE](https://arxiv.org/abs/2311.03099)" in card
    assert "on top of `base`" in card
    assert "- `a`" in card
    assert "Seed of random masks: 17." in card
    assert (small_models / "out" / "mergekit_config.yml").read_text().rstrip() in card
    manifest = json.loads((small_models / "out" / "mergeplan_manifest.json").read_text())
    assert manifest["seed"] == 17


def test_the_cards_front_matter_is_mergekits(demo_pool, tmp_path):
    models = [demo_pool / "python", demo_pool / "perl"]
    text = config_text("linear", models, parameters={"weight": 1})
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = front_matter(tmp_path / "ours"), front_matter(tmp_path / "theirs")
    assert ours["tags"] == [*theirs["tags"], "mergeplan"]
    assert ours["library_name"] == theirs["library_name"]
    assert ours["base_model"] == theirs["base_model"] == []


@pytest.mark.parametrize(
    "model",
    [
        "org/name",
        "name",
        "org/name@v1.0",
        "org/name+org/adapter",
        "org/name@main+/local/adapter",
        "/local/path",
        "~/path",
        "some/deep/path",
    ],
)
def test_hub_ids_are_those_of_mergekit(model):
    from mergekit.card import extract_hf_paths
    from mergekit.common import ModelReference

    assert hub_ids(model) == list(extract_hf_paths([ModelReference.parse(model)]))


def test_a_local_folder_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "models" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_ids("models/base") == []
    assert hub_ids("./models/other") == []


def test_the_donor_is_the_first_model_of_the_first_slice():
    text = """
slices:
  - sources: [{model: x, layer_range: [0, 2]}]
  - sources: [{model: y, layer_range: [2, 4]}]
merge_method: passthrough
"""
    assert parse_config(text).donor == "x"


@pytest.mark.parametrize("top", [{}, {"dtype": "float32"}], ids=["", "dtype"])
def test_a_config_of_an_older_transformers_reads_as_mergekits_does(top, zoo, tmp_path):
    from transformers import AutoConfig

    older = {
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "rope_theta": 1e6,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "max_window_layers": 24,
    }
    newer = ("dtype", "rope_parameters", "layer_types")
    for name in ("base", "a"):
        (tmp_path / name).mkdir()
        for path in (zoo / "qwen2" / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
        config = config_of(tmp_path / name)
        config = {key: value for key, value in config.items() if key not in newer} | older
        (tmp_path / name / "config.json").unlink()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    text = config_text(
        "linear", [tmp_path / "a"], base=tmp_path / "base", parameters={"weight": 1}, **top
    )
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = (
        AutoConfig.from_pretrained(tmp_path / one).to_dict() | {"_name_or_path": None}
        for one in ("ours", "theirs")
    )
    assert ours == theirs


def test_a_link_out_of_the_models_folder_is_said(tmp_path):
    """As the hub's cache has them, and as a stranger may plant them."""
    from mergeplan.merging.companions import leads_out

    snapshot = tmp_path / "hub" / "models--a" / "snapshots" / "1"
    blobs = tmp_path / "hub" / "models--a" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "0").write_text("{}")
    (tmp_path / "id_rsa").write_text("secret")
    (snapshot / "vocab.json").symlink_to("../../blobs/0")
    (snapshot / "merges.txt").symlink_to("vocab.json")
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "id_rsa")
    assert [
        leads_out(snapshot, name) for name in ("vocab.json", "merges.txt", "tokenizer.json")
    ] == [
        False,
        False,
        True,
    ]
