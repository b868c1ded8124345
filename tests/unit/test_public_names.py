"""Names of models for others: only at the places of models, and without the names of people."""

import pytest
import yaml

from mergeplan.config.config import parse_config
from mergeplan.merging.public import PublicNames


def public(**config: object) -> dict:
    """The public form of a config, which is one that can be merged again."""
    text = PublicNames(parse_config(yaml.safe_dump(config, sort_keys=False))).config_text
    assert parse_config(text).method.name == config["merge_method"]
    return yaml.safe_load(text)


def public_models(*models: str) -> list[str]:
    found = public(
        merge_method="linear",
        models=[{"model": model, "parameters": {"weight": 1}} for model in models],
    )
    return [one["model"] for one in found["models"]]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Folders that are called like words of the language, each twice."""
    for name in ("linear", "base", "union", "float32", "model"):
        for place in (name, f"other/{name}"):
            (tmp_path / "r" / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "r")


@pytest.mark.parametrize("name", ["linear", "base", "union", "float32", "model"])
def test_words_of_the_language_are_no_models(name, folders):
    rest = {"merge_method": "linear", "dtype": "float32", "parameters": {"weight": 1}}
    for source in ("base", "union"):
        config = {**rest, "base_model": name, "tokenizer_source": source}
        found = public(**config, models=[{"model": name}, {"model": f"other/{name}"}])
        named = {"base_model": f"./r/{name}", "tokenizer_source": source}
        models = [{"model": f"./r/{name}"}, {"model": f"./other/{name}"}]
        assert found == {**rest, **named, "models": models}


def test_every_place_of_a_model_is_renamed(folders):
    rest = {"merge_method": "passthrough", "dtype": "float32"}

    def config(linear: str, base: str, other: str) -> dict:
        parts = {"model": {"path": linear}, "lora": {"path": other}}
        tokens = {
            "linear": {"source": {"kind": "zero"}},
            "b": {"source": {"kind": "model_token", "model": base, "token": "linear"}},
            "c": {"source": linear, "force": True},
        }
        source = {"model": linear, "layer_range": [0, 1], "parameters": {"scale": 1.0}}
        return {
            **rest,
            "modules": {
                "linear": {"slices": [{"sources": [source], "base_model": base}]},
                "model": {"models": [{"model": parts}]},
            },
            "tokenizer": {"source": "union", "tokens": tokens},
        }

    assert public(**config("linear", "base", "other/linear")) == config(
        "./r/linear", "base", "./other/linear"
    )
    assert public(**config("other/base", "linear", "base")) == config(
        "./other/base", "linear", "./r/base"
    )


def test_a_model_that_gives_the_tokens_is_not_taken_for_the_base(folders):
    models = [{"model": "other/base"}, {"model": "other/linear"}]
    rest = {"merge_method": "linear", "parameters": {"weight": 1}}
    found = public(**rest, models=models, tokenizer_source="other/base")
    named = {"models": [{"model": "./base"}, {"model": "linear"}], "tokenizer_source": "./base"}
    assert found == {**rest, **named}


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["~/final", "/data/final"], ["./1/final", "./2/final"]),
        (["~/final", "/data/x/final"], ["final", "./x/final"]),
        (["~/final", "/home/bob/final", "/c/final/"], ["./1/final", "./2/final", "./3/final"]),
        (["/scratch/alice/m/final", "/scratch/y/m/final"], ["./m/final", "./y/m/final"]),
        (["/a/1/final", "/b/1/final", "/1/final"], ["./1/1/final", "./2/1/final", "final"]),
        (["~/final", "/x/1/final", "/x/2/y"], ["final", "./1/final", "y"]),
        (["/final", "~"], ["final", "model"]),
        (["/a/m", "/b/m", "/c/1/m", "/d/1/m"], ["./2/m", "./3/m", "./1/1/m", "./2/1/m"]),
    ],
)
def test_folders_are_not_told_apart_by_the_names_of_people(models, names, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    assert public_models(*models) == names
