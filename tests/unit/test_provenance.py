"""What the manifest beside a merge says it is, and `--as` beside it."""

import json
import os
import re
import shlex
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mergeplan import merge
from mergeplan.config.write import merge_config
from mergeplan.errors import InputError
from mergeplan.evaluation.provenance import provenance
from mergeplan.evaluation.recording import parse_merge
from mergeplan.evaluation.sources import names_in_pools
from tests.support.settings import DEMO_POOL

BASE, HTML, JS = (DEMO_POOL / name for name in ("base", "html", "js"))


def made(folder, config):
    merge(config, folder / "out")
    return provenance(folder / "out")


def delta(method="ties", weights=(1, 1), **parameters):
    models = [
        {"model": str(path), "parameters": {"weight": weight}}
        for path, weight in zip((JS, HTML), weights, strict=True)
    ]
    return {
        "merge_method": method,
        "base_model": str(BASE),
        "models": models,
        "parameters": parameters,
    }


@pytest.fixture(scope="module")
def ties(tmp_path_factory):
    return made(tmp_path_factory.mktemp("ties"), delta(density=0.2))


def test_a_manifest_fills_what_is_not_said(ties):
    assert str(ties) == "TIES, density 0.2, of html + js on base"
    assert parse_merge((), ties) == {
        "subset": "html+js",
        "k": "2",
        "method": "ties",
        "options": '{"density": 0.2}',
    }
    assert ties.data()["base"] == str(BASE)
    said = parse_merge(("pool_size=9", "k=2", "subset=js+html", "method=ties"), ties)
    assert (said["pool_size"], said["subset"]) == ("9", "js+html")
    said = parse_merge(('options={"density": 0.2, "lambda": 1}',), ties)
    assert said["options"] == '{"density": 0.2, "lambda": 1}'


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("k=3", "k `2 (html+js)`"),
        ("k=0", "k `2 (html+js)`"),
        ("subset=html+css", "subset `html+js`"),
        ("subset=html", "subset `html+js`"),
        ("method=average", "method `ties`"),
        ("method=mine", "method `ties`"),
        ('options={"density": 0.4}', 'options `{"density": 0.2}`'),
        ("options={}", 'options `{"density": 0.2}`'),
        ("weights=0.7+0.3", "weights `0.5+0.5`"),
    ],
)
def test_what_contradicts_the_manifest_is_refused_with_both_values(given, found, ties):
    with pytest.raises(InputError) as caught:
        parse_merge((given,), ties)
    assert str(caught.value) == f"--as `{given}` contradicts `{ties.path}`: found {found}"
    assert "leave `--as " in caught.value.hint


def test_an_option_that_the_method_lacks_is_a_typo(ties):
    with pytest.raises(InputError, match="has no option `densty`"):
        parse_merge(('options={"densty": 0.2, "density": 0.2}',), ties)


def test_a_label_of_ones_own_names_its_method(ties):
    said = parse_merge(("method=sparse", 'options={"method": "ties", "density": 0.2}'), ties)
    assert said["method"] == "sparse"
    with pytest.raises(InputError, match="contradicts") as refused:
        parse_merge(("method=sparse", 'options={"method": "della", "density": 0.2}'), ties)
    said = re.search("`(--as '.*')`", refused.value.hint)[1]
    assert shlex.split(said) == ["--as", 'options={"method": "ties"}']


@pytest.mark.parametrize(
    ("label", "options", "weights"),
    [
        ("average", {}, None),
        ("average", {}, (0.5, 0.25)),
        ("task_arithmetic", {"lambda": 0.4}, None),
        ("task_arithmetic", {}, (0.7, 0.3)),
        ("dare_ties", {"density": 0.5}, None),
        ("breadcrumbs_ties", {}, None),
        ("della", {"density": 0.5, "epsilon": 0.1}, None),
    ],
)
def test_what_a_pools_merge_is_written_as_is_read_again(label, options, weights, tmp_path):
    found = made(tmp_path, merge_config(label, options, BASE, [HTML, JS], "float32", weights))
    row = parse_merge((), found)
    assert (row["method"], json.loads(row["options"])) == (label, options)
    assert (row["k"], row["subset"]) == ("2", "html+js")
    told = tuple(map(float, row["weights"].split("+"))) if "weights" in row else None
    assert told == (weights and pytest.approx(weights))
    assert ("seed" in row) == label.startswith(("dare", "della"))


def test_unequal_weights_follow_the_order_of_the_subset(tmp_path):
    found = made(tmp_path, delta("task_arithmetic", (0.6, 0.2)))
    assert parse_merge((), found)["weights"] == "0.2+0.6"
    assert parse_merge(("subset=js+html",), found)["weights"] == "0.6+0.2"
    assert parse_merge(("subset=js+html", "weights=.6+.2"), found)["weights"] == ".6+.2"


def test_elected_weights_that_are_not_normalised_are_another_merge(tmp_path):
    found = made(tmp_path, delta("ties", density=0.2, normalize=False))
    row = parse_merge((), found)
    assert json.loads(row["options"]) == {"density": 0.2, "normalize": False}
    assert row["weights"] == "1+1"


def test_what_has_no_single_value_has_to_be_said(tmp_path):
    found = made(tmp_path, delta(density=[0.2, 0.8]))
    with pytest.raises(InputError, match="`density` has no single value"):
        parse_merge((), found)
    assert parse_merge(('options={"density": "0.2 to 0.8"}',), found)["method"] == "ties"
    (tmp_path / "w").mkdir()
    found = made(tmp_path / "w", delta(weights=([0, 1], 1)))
    with pytest.raises(InputError, match="`weight` has no single value"):
        parse_merge((), found)


def test_without_a_base_any_of_the_models_may_be_it(tmp_path):
    models = [{"model": str(path), "parameters": {"weight": 1}} for path in (BASE, JS)]
    found = made(tmp_path, {"merge_method": "linear", "models": models})
    assert found.data()["k"] is None
    assert parse_merge((), found)["subset"] == "base+js"
    row = parse_merge(("subset=js",), found)
    assert (row["k"], row["weights"]) == ("1", "0.5")
    with pytest.raises(InputError, match="contradicts"):
        parse_merge(("subset=html",), found)
    with pytest.raises(InputError, match="contradicts"):
        parse_merge(("k=3",), found)


def test_of_two_that_are_interpolated_nobody_says_which_is_the_expert(tmp_path):
    config = {"merge_method": "slerp", "base_model": str(HTML), "models": [{"model": str(JS)}]}
    found = made(tmp_path, config | {"parameters": {"t": 0.3}})
    with pytest.raises(InputError, match="mergeplan_manifest.json` says how .* may be the base"):
        parse_merge((), found)
    row = parse_merge(("subset=html+js",), found)
    assert (row["method"], row["options"], row["k"]) == ("slerp", '{"t": 0.3}', "2")


def test_models_whose_folders_have_one_name_have_to_be_named(tmp_path):
    models = []
    for name, source in (("one", HTML), ("two", JS)):
        shutil.copytree(source, tmp_path / name / "final")
        models.append({"model": str(tmp_path / name / "final")})
    found = made(
        tmp_path, {"merge_method": "linear", "models": models} | {"parameters": {"weight": 0.5}}
    )
    with pytest.raises(InputError, match="folders of its 2 models are called `final` alike") as e:
        parse_merge((), found)
    assert "--as subset=" in e.value.hint
    assert parse_merge(("subset=one+two",), found)["k"] == "2"


def test_a_pool_names_the_experts(tmp_path):
    pool = {"sizes": [{"base": str(BASE), "experts": {"web": str(HTML), "script": str(JS)}}]}
    (tmp_path / "pool.yml").write_text(yaml.safe_dump(pool))
    merge(delta(), tmp_path / "out")
    found = provenance(tmp_path / "out", names_in_pools((str(tmp_path / "pool.yml"),)))
    assert parse_merge(("subset=web+script",), found)["k"] == "2"
    with pytest.raises(InputError, match=r"found subset `script\+web`"):
        parse_merge(("subset=html+js",), found)


def test_a_manifest_of_weights_that_were_changed_says_nothing_of_them(tmp_path):
    assert made(tmp_path, delta()) is not None
    path = tmp_path / "out" / "model.safetensors"
    # As what is trained on from it: the same header, and other values.
    path.write_bytes(path.read_bytes()[:-2000] + bytes(2000))
    assert provenance(tmp_path / "out", verified=True) is None
    merge(delta(), tmp_path / "again")
    assert provenance(tmp_path / "again", verified=True) is not None


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("folder", "it is a folder"),
        ("pipe", "found a pipe"),
        ("device", "found a device"),
        ("dangling link", "no such file"),
    ],
)
def test_a_manifest_that_is_no_file_is_said(kind, found, tmp_path):
    path = tmp_path / "mergeplan_manifest.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nothing")
    with pytest.raises(InputError, match=found):
        provenance(tmp_path)


def test_a_manifest_of_other_weights_and_a_plain_copy_say_nothing(tmp_path):
    merge(delta(), tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    shutil.copy(tmp_path / "out" / "config.json", tmp_path)
    assert provenance(tmp_path / "out") is None
    copy = {"merge_method": "passthrough", "models": [{"model": str(BASE)}]}
    (tmp_path / "copy").mkdir()
    assert made(tmp_path / "copy", copy) is None
    assert provenance(BASE) is None


def test_an_adapter_that_was_merged_into_its_base_is_an_expert(tmp_path):
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{module}.lora_A.weight": torch.ones(4, 48)}
    tensors[f"{module}.lora_B.weight"] = torch.ones(48, 4)
    (tmp_path / "lora").mkdir()
    save_file(tensors, tmp_path / "lora" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    model = f"{BASE}+{tmp_path / 'lora'}"
    found = made(tmp_path, {"merge_method": "passthrough", "models": [{"model": model}]})
    assert str(found) == "lora on base"
    row = parse_merge(("method=average",), found)
    assert (row["k"], row["subset"], row["method"]) == ("1", "lora", "average")
    with pytest.raises(InputError, match=r"found k `1 \(lora\)`"):
        parse_merge(("k=0",), found)
