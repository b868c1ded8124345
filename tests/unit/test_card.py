"""The model card: names without paths, and licences."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mergeplan.config.config import parse_config
from mergeplan.display.markdown import fenced
from mergeplan.errors import InputError
from mergeplan.hub.files import files_of
from mergeplan.merging.card import Card
from mergeplan.merging.licence import Licence, Unreadable, licence_of
from mergeplan.merging.licences import Licences
from mergeplan.merging.manifest import NAME, load_manifest
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.public import PublicNames
from mergeplan.merging.turns import check_merges
from tests.support.checkpoints import save_checkpoint
from tests.support.merges import config_text, run_mergeplan


def give_licence(folder: Path, **front: object) -> None:
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n# A model\n")


def front_matter(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("given", ["whole", "relative", "home"])
def test_what_a_merge_leaves_for_others_names_no_path(given, small_models, monkeypatch):
    monkeypatch.chdir(small_models / "a")
    monkeypatch.setenv("HOME", str(small_models))
    start = {"whole": str(small_models), "relative": "..", "home": "~"}[given]
    text = config_text(
        "ties",
        [f"{start}/a", f"{start}/b/"],
        base=f"{start}/base",
        parameters={"weight": 1, "density": 0.5},
    )
    text = f"# as in {small_models}/notes.txt\n{text}"
    out = small_models / "out"
    run_mergeplan(text, out)
    for file in ("README.md", "mergekit_config.yml"):
        said = (out / file).read_text()
        assert [path for path in (str(small_models), "../", "~") if path in said] == []
    config = yaml.safe_load((out / "mergekit_config.yml").read_text())
    assert config["base_model"] == "base"
    assert [model["model"] for model in config["models"]] == ["a", "b"]
    assert "- `a`\n- `b`\n" in (out / "README.md").read_text()
    # What resumes and verifies needs them.
    assert json.loads((out / "mergeplan_manifest.json").read_text())["config"] == text


def merge_with_adapter(folder: Path, named: str, base: Path, **options: object) -> Path:
    """Merge a model and an adapter that names its base itself."""
    for place in (folder / "a", base):
        save_checkpoint(place, {"x.weight": torch.ones(8, 6)})
    factors = {"A": torch.ones(2, 6), "B": torch.ones(8, 2)}
    keys = {f"base_model.model.x.lora_{name}.weight": value for name, value in factors.items()}
    (folder / "lora").mkdir()
    save_file(keys, folder / "lora" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": named}
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(config))
    text = config_text("linear", [folder / "a", folder / "lora"], parameters={"weight": 1})
    run_mergeplan(text, folder / "out", **options)
    return folder / "out"


@pytest.mark.parametrize("named", ["{}/secret/base", "../secret/base"])
def test_a_base_that_an_adapter_names_is_called_without_its_path(named, tmp_path):
    out = merge_with_adapter(tmp_path, named.format(tmp_path), tmp_path / "secret" / "base")
    card = (out / "README.md").read_text()
    assert "| `base` | none stated |\n" in card
    assert "secret" not in card


def test_what_is_published_of_such_a_merge_names_no_path(tmp_path):
    """Nor do the manifest and the settings."""
    place = tmp_path / "secret" / "base"
    out = merge_with_adapter(tmp_path, str(place), place, write_model_card=True)
    config = load_manifest(out).config
    options = MergeOptions(resume=True)
    (checked,) = check_merges([MergeRequest(parse_config(config), out)], options)
    card = Card(checked.config, checked.plan, "mit")
    files = files_of(checked, card, "title", load_manifest(out))
    assert [one["model"] for one in json.loads(files[NAME])["inputs"]] == ["a", "base", "lora"]
    contents = [Path(one).read_bytes() if isinstance(one, str) else one for one in files.values()]
    assert [one for one in contents if str(tmp_path).encode() in one] == []


def test_a_base_on_the_hub_that_an_adapter_names_is_the_cards(tmp_path):
    cached = tmp_path / "hub" / "models--org--base"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0a1b")
    base, cache = cached / "snapshots" / "0a1b", str(tmp_path / "hub")
    out = merge_with_adapter(tmp_path, "org/base", base, transformers_cache=cache)
    assert front_matter(out)["base_model"] == ["org/base"]


def test_a_config_without_paths_stays_as_it_was_written():
    text = """# why: https://example.org/a
merge_method: linear
models:
  - {model: org/a@main, parameters: {weight: 1}}   # the first
  - {model: org/b, parameters: {weight: 1e-1}}
"""
    assert PublicNames(parse_config(text)).config_text == text


def names_of(*models: object) -> list[str]:
    names = PublicNames(parse_config(config_text("linear", models, parameters={"weight": 1})))
    return [names.of(str(model)) for model in models]


def test_folders_of_one_name_are_told_apart_by_the_folders_above():
    paths = ["/me/x/run/step", "/me/y/run/step", "/me/y/other", "org/step"]
    assert names_of(*paths) == ["./x/run/step", "./y/run/step", "other", "org/step"]
    assert names_of("/me/x/step", "/me/x/step/") == ["step", "step"]


def test_a_folder_whose_name_is_no_text_can_be_named(tmp_path, monkeypatch):
    odd = tmp_path / "caf\udce9"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert names_of(".") == ["caf\\udce9"]


def test_a_folder_of_the_hubs_cache_is_its_repository():
    folder = "/me/hub/models--org--some-name/snapshots/0a1b"
    names = PublicNames(parse_config(config_text("linear", [f"{folder}+/me/lora", "/me/b"])))
    assert names.of(f"{folder}+/me/lora") == "org/some-name@0a1b+lora"
    assert names.hub_ids(f"{folder}+/me/lora") == ["org/some-name"]
    assert names.hub_ids("org/a@main+org/lora") == ["org/a", "org/lora"]


def merged(folder: Path, **options: object) -> Path:
    text = config_text(
        "linear", [folder / "a", folder / "b"], base=folder / "base", parameters={"weight": 1}
    )
    run_mergeplan(text, folder / "out", **options)
    return folder / "out"


def test_a_licence_that_all_models_have_is_the_merges(small_models):
    other = {"license": "other", "license_name": "ours", "license_link": "https://example.org"}
    for name in ("base", "a", "b"):
        give_licence(small_models / name, **other)
    found = front_matter(merged(small_models))
    assert {key: found[key] for key in other} == other


def test_licences_that_differ_are_listed_and_none_is_set(small_models):
    give_licence(small_models / "base", license="apache-2.0")
    give_licence(small_models / "a", license=["MIT"])
    out = merged(small_models)
    assert "license" not in front_matter(out)
    card = (out / "README.md").read_text()
    assert "| `a` | `mit` |\n| `b` | none stated |\n| `base` | `apache-2.0` |\n" in card
    assert "No licence is set" in card


def test_a_licence_that_the_user_sets_is_the_cards(small_models):
    give_licence(small_models / "base", license="apache-2.0")
    out = merged(small_models, license="mit")
    assert front_matter(out)["license"] == "mit"
    assert "No licence is set" not in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "readme",
    [
        b"# No head",
        b"",
        b"---\n---\n# An empty one",
        b"---\n# a comment\n---\n",
        b"---\nlicense:\n---\n",
        b"---\nlicense: []\nlicense_name: x\n---\n",
        b"# Licence\nLicense: see the file, and\n```yaml\nkey: license\n```\n",
        b"---\ntags: [a]\n---\nCaf\xe9\nlicense: in prose\n",
    ],
)
def test_a_card_that_says_nothing_of_use_has_no_licence(readme, tmp_path):
    (tmp_path / "README.md").write_bytes(readme)
    assert licence_of(tmp_path) is None


@pytest.mark.parametrize(
    ("readme", "why"),
    [
        (b"---\nlicense: [\n---\n", "invalid YAML: line 3"),
        (b"---\nlicense: {a: b}\n---\n", "`license`: expected a text of one line, found `{'a"),
        (b"---\nlicense: [mit, [x]]\n---\n", "`license`: expected a text"),
        (b'---\nlicense: "a\\nb"\n---\n', "`license`: expected a text"),
        (b"---\nlicense: 2.0\n---\n", "`license`: expected a text"),
        (b"---\nlicense: see LICENSE (CC BY-ND)\n---\n", "`license`: expected the hub's word"),
        (b"---\nlicense: cc-by-nd-4.0\nfoo: [bar\n---\n", "invalid YAML"),
        (b"---\nlicense: cc-by-nd-4.0\nfoo: @bad\n---\n", "invalid YAML"),
        (
            b"---\nlicense: cc-by-nd-4.0\nlicense: mit\n---\n",
            "`license` stands twice (line 3, ",
        ),
        (b"---\nlicense: mit\nLicence: cc-by-nd-4.0\n---\n", "several spellings"),
        (b"---\nlicense: other\nlicense_name: [cc-by-nd-4.0]\n---\n", "`license_name`: expected"),
        (b"---\nlicense: cc-by-nd-4.0\n# Title\n", "no closing `---`"),
        (b"---\nlicense: cc-by-nd-4.0\nauthor: Caf\xe9\n---\n", "line 3: expected UTF-8"),
        (b"license: cc-by-nd-4.0\n---\n# Title\n", "outside of a head"),
        (b"---\n- license\n---\n", "expected keys and values"),
        (b"---\nlicense: &a [*a]\n---\n", "contains itself"),
        ("---\nlicense: mit\n---\n".encode("utf-16"), "expected UTF-8"),
        (b"---\nlicense: mit\n" + b"#" * 1_000_001 + b"\n---\n", "expected at most 1 MB"),
    ],
)
def test_a_card_that_cannot_be_read_in_full_may_state_any_licence(readme, why, tmp_path):
    (tmp_path / "README.md").write_bytes(readme)
    found = licence_of(tmp_path)
    assert isinstance(found, Unreadable)
    assert why in found.why
    assert found.why.count(f"`{tmp_path / 'README.md'}`") == 1
    for chosen in (None, "apache-2.0", "other"):
        with pytest.raises(InputError, match="the licence of `a` cannot be read") as refused:
            Licences({"a": found, "b": Licence(("mit",))}, chosen).check()
        assert found.why in refused.value.message


def test_a_card_that_is_a_link_to_nothing_cannot_be_read(tmp_path):
    (tmp_path / "README.md").symlink_to(tmp_path / "gone")
    assert isinstance(licence_of(tmp_path), Unreadable)


@pytest.mark.parametrize(
    ("head", "ids"),
    [
        ('license: "CC BY-NC-ND 4.0"', ("cc-by-nc-nd-4.0",)),
        ("license: CC_BY_ND_4.0", ("cc-by-nd-4.0",)),
        ("licence: MIT", ("mit",)),
        ('license: [mit, "Llama 3 Community"]', ("mit", "llama-3-community")),
    ],
)
def test_words_for_a_licence_have_a_normal_form(head, ids, tmp_path):
    # Empty lines may stand before the head, and a byte order mark; lines may end in any way.
    (tmp_path / "README.md").write_bytes(f"\ufeff\r\n\r\n---\r\n{head}\r\n---".encode())
    found = licence_of(tmp_path)
    assert found == Licence(ids)
    if ids != ("mit",):
        with pytest.raises(InputError, match="forbids to publish|terms of its own"):
            Licences({"a": found}, "apache-2.0").check()


def test_a_licence_that_cannot_be_read_is_listed_as_such(small_models):
    (small_models / "a" / "README.md").write_text("---\nlicense: cc-by-nd-4.0\n")
    card = (merged(small_models) / "README.md").read_text()
    assert "| one that cannot be read |" in card
    assert "not all of its models' can be read" in card


def licences(chosen: str | None, **models: str | None) -> Licences:
    return Licences({name: one and Licence((one,)) for name, one in models.items()}, chosen)


@pytest.mark.parametrize(
    ("chosen", "models"),
    [
        (None, {"a": "llama3.1", "b": "llama3.1"}),
        ("mit", {"a": "apache-2.0", "b": None}),
        ("llama3.1", {"a": "llama3.1", "b": "mit"}),
        ("cc-by-nc-4.0", {"a": "cc-by-nc-4.0", "b": "mit"}),
        ("other", {"a": "cc-by-nc-4.0", "b": "llama3.1"}),
    ],
)
def test_licences_that_go_together_may_be_published(chosen, models):
    assert licences(chosen, **models).check().ids == (chosen or "llama3.1",)


@pytest.mark.parametrize(
    ("chosen", "models", "message"),
    [
        (None, {"a": "mit", "b": None}, r"no licence .*\(`a`: mit, `b`: none\)"),
        (None, {"a": None, "b": None}, "^no licence for the merge: no model's card states one"),
        (None, {"a": "other", "b": "other"}, r"do not say which they mean \(`a`: other, `b`"),
        ("mit", {"a": "cc-by-nc-nd-4.0"}, "`a`, cc-by-nc-nd-4.0, forbids to publish"),
        (None, {"a": "cc-by-nd-4.0"}, "forbids to publish"),
        ("apache-2.0", {"a": "mit", "b": "cc-by-nc-4.0"}, "`b` may not be used commercially"),
        ("llama3", {"a": "llama3", "b": "cc-by-nc-4.0"}, "`b` may not be used commercially"),
        ("mit", {"a": "gemma"}, "`a` has terms of its own"),
        ("mit", {"a": "gpl-3.0"}, "`a` has terms of its own"),
    ],
)
def test_a_licence_that_forbids_is_one_clear_answer(chosen, models, message):
    with pytest.raises(InputError, match=message):
        licences(chosen, **models).check()


def test_a_licence_that_is_none_by_its_form_is_refused(small_models):
    with pytest.raises(InputError, match="`license`: expected the hub's word"):
        merged(small_models, license="Apache License, Version 2.0")


def test_a_licence_in_other_letters_is_the_hubs_word(small_models):
    out = merged(small_models, license="MIT")
    assert front_matter(out)["license"] == "mit"


def test_a_licence_that_the_hub_does_not_know_is_taken_with_a_warning(small_models):
    text = config_text("linear", [small_models / "a"], parameters={"weight": 1})
    told = [
        run_mergeplan(text, small_models / licence, license=licence).warnings
        for licence in ("mit", "apache2.0")
    ]
    assert not any("the hub may know" in warning for warning in told[0])
    assert "`--license apache2.0`: the hub may know no such licence; did you mean" in " ".join(
        told[1]
    )


HOSTILE = "a`|<b>x</b>\n# H1\n[x](http://evil) ``` <script>alert(1)</script>"


def test_text_of_others_stays_text_in_the_card(tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    odd = HOSTILE.replace("/", "_")
    for name in (odd, "b"):
        tensors = {"x.weight": torch.ones(8, 6)}
        extra = {HOSTILE: torch.ones(2), "a" * 300: torch.ones(2)} if name == odd else {}
        save_checkpoint(tmp_path / name, tensors | extra)
    give_licence(
        tmp_path / "b",
        license="other",
        license_name="x | <script>alert(1)</script> [a](javascript:alert(1)) `",
        license_link="javascript:alert(1)",
    )
    text = config_text("linear", [tmp_path / odd, tmp_path / "b"], parameters={"weight": 1})
    out = tmp_path / "out <img src=x>"
    run_mergeplan(f"# ```\n# <b>no path</b>\n{text}", out, allow_left_out=("a*",))
    head, _, card = (out / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    assert "license" not in yaml.safe_load(head)
    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").parse(card)
    inline = [one for token in tokens for one in token.children or ()]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not {kind for kind in kinds if kind.startswith(("html", "image", "s_", "em_", "strong"))}
    headings = [tokens[i + 1].content for i, one in enumerate(tokens) if one.type == "heading_open"]
    assert headings == ["`out <img src=x>`", "Models", "Licences", "Left out", "Configuration"]
    links = {one.attrs["href"] for one in inline if one.type == "link_open"}
    assert links == {"https://arxiv.org/abs/2203.05482"}
    assert [token.type for token in tokens].count("td_open") == 4
    assert [token.type for token in tokens].count("fence") == 1
    assert max(len(one.content) for one in inline if one.type == "code_inline") <= 200


def test_a_config_with_a_fence_in_it_stays_in_its_block():
    assert fenced("a: |\n  ````\n  x", "yaml").startswith("`````yaml\n")
