"""YAML that people post: `random_seed`, other tools' configs, retired keys, paths with `+`."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import mergeplan
from mergeplan import mergekit_plugin
from mergeplan.calibration.options import CalibrateOptions, check_options, plans_of
from mergeplan.config.config import parse_config
from mergeplan.errors import InputError
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.planning.rope import rope_of
from mergeplan.pool.subsets import read_subsets
from tests.support.checkpoints import save_checkpoint, weights_of
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan
from tests.support.pools import write_pool

DIFFER = "`random_seed` is 5 in the config, and 7 was given: 7 is used"


def dare(folder: Path, **top: object) -> str:
    return config_text(
        "dare_linear",
        [folder / "a", folder / "b"],
        base=folder / "base",
        parameters={"weight": 0.5, "density": 0.5},
        **top,
    )


@pytest.fixture
def seeded(small_models) -> Path:
    """`small_models`, a config with seed 5 beside them, and merges by seeds 0, 5 and 7."""
    for seed in (0, 5, 7):
        run_mergeplan(dare(small_models), small_models / f"seed{seed}", seed=seed)
    (small_models / "c.yml").write_text(dare(small_models, random_seed=5))
    return small_models


def same(folder: Path, out: str, seed: int) -> bool:
    return weights_of(folder / out) == weights_of(folder / f"seed{seed}")


# random_seed.


def test_the_configs_seed_counts_where_no_other_is_given(seeded):
    assert not same(seeded, "seed0", 5)
    assert cli("merge", seeded / "c.yml", seeded / "out").returncode == 0
    assert same(seeded, "out", 5)
    manifest = json.loads((seeded / "out" / "mergeplan_manifest.json").read_text())
    assert manifest["seed"] == 5
    assert "Seed of random masks: 5." in (seeded / "out" / "README.md").read_text()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["merge", "dry run"])
def test_another_seed_that_is_given_wins_and_a_warning_says_so(seeded, dry):
    done = cli("merge", seeded / "c.yml", seeded / "out", "--random-seed", 7, *dry)
    assert f"warning: {DIFFER}" in done.stderr
    assert dry or same(seeded, "out", 7)
    equal = cli("merge", seeded / "c.yml", seeded / "two", "--random-seed", 5, *dry)
    assert "random_seed" not in equal.stderr


def test_merges_in_memory_and_several_at_once_take_it_too(seeded):
    import torch

    config = seeded / "c.yml"
    first, second = mergeplan.merge_many(
        [MergeRequest(config, seeded / "one"), MergeRequest(config, seeded / "two", seed=7)]
    )
    assert (first.seed, second.seed) == (5, 7)
    assert not any("random_seed" in warning for warning in first.warnings)
    assert DIFFER in second.warnings
    assert same(seeded, "one", 5)
    assert same(seeded, "two", 7)
    streamed = dict(mergeplan.stream(config))
    plain = dict(
        mergeplan.stream(dare(seeded) and parse_config(dare(seeded)), MergeOptions(seed=5))
    )
    assert all(torch.equal(streamed[name], plain[name]) for name in plain)


@pytest.mark.parametrize("value", ["-1", "1.5", "true", "x", "18446744073709551616"])
def test_what_is_no_seed_is_refused(value):
    with pytest.raises(InputError, match="`random_seed`: expected a whole number"):
        parse_config(f"merge_method: linear\nmodels: [{{model: a}}]\nrandom_seed: {value}\n")


def test_mergekits_own_run_takes_it_too(demo_pool, tmp_path):
    text = config_text(
        "dare_ties",
        [demo_pool / "html", demo_pool / "json"],
        base=demo_pool / "base",
        parameters={"weight": 0.7, "density": 0.5},
        random_seed=5,
    )
    (tmp_path / "c.yml").write_text(text)
    run_mergeplan(text, tmp_path / "ours")
    try:
        done = cli("mergekit", tmp_path / "c.yml", tmp_path / "theirs")
        assert done.returncode == 0, done.stderr
        assert weights_of(tmp_path / "theirs") == weights_of(tmp_path / "ours")
        (tmp_path / "c.yml").write_text("genome: {}\nrandom_seed: 5")
        done = cli("mergekit", tmp_path / "c.yml", tmp_path / "x", "--random-seed=7")
        assert "mergekit-evolve" in done.stderr
        (tmp_path / "c.yml").write_text("merge_method: no\nrandom_seed: 5")
        done = cli("mergekit", tmp_path / "c.yml", tmp_path / "x", "--random-seed=7")
        assert f"warning: {DIFFER}" in done.stderr
    finally:
        mergekit_plugin.unregister()


def test_a_pools_seed_is_that_of_its_sample(tmp_path):
    methods = {"dare": {"density": 0.7}, "average": {}}
    pool = write_pool(tmp_path, methods=methods, random_seed=5)
    done = cli("sample", pool, "-o", tmp_path / "s", "--k", 2, "--count", 2)
    assert (done.returncode, "random_seed" in done.stderr) == (0, False)
    rows = read_subsets(tmp_path / "s" / "subsets.csv")
    assert {(row.merge.method, row.merge.seed) for row in rows} == {
        ("base", 0),
        ("average", 0),
        ("dare", 5),
    }
    written = {row.merge.method: yaml.safe_load(row.config.read_text()) for row in rows}
    assert [written[name].get("random_seed") for name in ("average", "dare")] == [None, 5]
    done = cli("sample", pool, "-o", tmp_path / "t", "--seed", 7, "--k", 2, "--count", 2)
    assert f"`random_seed` is 5 in `{pool}`, and 7 was given: 7 is used" in done.stderr
    rows = read_subsets(tmp_path / "t" / "subsets.csv")
    assert {row.merge.seed for row in rows if row.merge.method == "dare"} == {7}
    assert cli("sample", write_pool(tmp_path, random_seed=-1), "-o", tmp_path / "u").returncode == 1


@pytest.mark.parametrize(("given", "seed"), [(None, 5), (7, 7)])
def test_a_pools_seed_is_that_of_its_calibration(given, seed, tmp_path):
    pool = write_pool(tmp_path, random_seed=5)
    options = CalibrateOptions(seed=given)
    plans = plans_of(check_options(pool, options), options, 0)
    assert {plan.seed for plan in plans} == {seed}


# Configs of other tools.

MIXTURE = """
base_model: b
gate_mode: hidden
dtype: bfloat16
experts:
  - source_model: x
    positive_prompts: ["code"]
"""


@pytest.mark.parametrize(
    ("text", "says", "way_out"),
    [
        (MIXTURE, "a mixture of experts: it has `experts`", "`mergekit-moe CONFIG.yml OUT_DIR`"),
        ("base_model: b\ngate_mode: random", "a mixture of experts: it has `gate_mode`", "moe"),
        ("genome: {models: [a]}\ntasks: [x]", "an evolutionary search", "`mergekit-evolve"),
        (
            "name: one\nmerge_method: linear\n---\nmerge_method: linear\n",
            "expected one YAML document, found 2",
            "`mergekit-multi CONFIG.yml --intermediate-dir DIR`",
        ),
    ],
)
def test_they_are_named_and_mergekits_command_is_the_way_out(text, says, way_out, tmp_path):
    (tmp_path / "c.yml").write_text(text)
    for command in (("merge", "c.yml", "out"), ("inspect", "c.yml")):
        done = cli(*command, cwd=tmp_path)
        assert done.returncode == 1
        assert says in done.stdout + done.stderr
        assert way_out in done.stdout + done.stderr


def test_a_single_document_may_have_its_marks():
    models = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n"
    for text in (f"---\n{models}", f"{models}...\n", f"# ---\n{models}"):
        assert parse_config(text).models[0].path == "a"


@pytest.mark.parametrize("place", ["embed_slerp: true", "parameters: {embed_slerp: true}"])
def test_embed_slerp_is_refused_by_name(place):
    text = "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\n"
    with pytest.raises(InputError, match=r"embed_slerp` does nothing") as caught:
        parse_config(
            f"{text}{place}\n" if place[0] == "p" else f"{text}parameters: {{t: 0}}\n{place}"
        )
    assert "mergekit knows it no more" in (caught.value.hint or "")


# Paths with `+`.


def test_a_path_with_a_plus_is_a_path_where_there_is_one(small_models, monkeypatch):
    monkeypatch.chdir(small_models)
    for name in ("base", "a", "b"):
        (small_models / name).rename(small_models / f"org+{name}@1")
    text = config_text(
        "linear",
        [Path("org+a@1"), Path("org+b@1")],
        base=Path("org+base@1"),
        parameters={"weight": 1},
    )
    run_mergeplan(text, small_models / "out")
    card = (small_models / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == []
    assert "https://huggingface.co/org" not in card


def test_an_adapter_on_a_base_with_a_plus_in_its_path(small_models):
    import torch
    from safetensors.torch import save_file

    base = save_checkpoint(small_models / "x+base", {"x.weight": torch.ones(4, 3)})
    adapter = small_models / "y+adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    factors = {"A": torch.ones(2, 3), "B": torch.ones(4, 2)}
    keys = {f"base_model.model.x.lora_{name}.weight": value for name, value in factors.items()}
    save_file(keys, adapter / "adapter_model.safetensors")
    config = {"merge_method": "passthrough", "models": [{"model": f"{base}+{adapter}"}]}
    merged = dict(mergeplan.stream(config))
    assert torch.equal(merged["x.weight"], torch.full((4, 3), 3.0))


def test_a_pool_whose_paths_have_a_plus_is_sampled_and_merged(tmp_path, demo_pool):
    for name in ("base", "html", "js"):
        shutil.copytree(demo_pool / name, tmp_path / f"my+{name}")
    experts = {name: f"my+{name}" for name in ("html", "js")}
    pool = write_pool(tmp_path, sizes=[{"base": "my+base", "experts": experts}])
    assert cli("sample", pool, "-o", tmp_path / "s", "--method", "dare").returncode == 0
    rows = read_subsets(tmp_path / "s" / "subsets.csv")
    row = next(row for row in rows if row.merge.k == 2)
    assert cli("merge", row.config, tmp_path / "out").returncode == 0


# rope_parameters.


@pytest.mark.parametrize(
    ("four", "five"),
    [
        (
            {"rope_theta": 1e4, "rope_scaling": None},
            {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}},
        ),
        (
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None},
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                }
            },
        ),
    ],
)
def test_one_rope_in_two_spellings_is_no_difference(four, five, tmp_path):
    import torch

    assert rope_of(four) == rope_of(five)
    for name, config in (("a", four), ("b", five), ("c", {"text_config": five})):
        save_checkpoint(tmp_path / name, {"x": torch.ones(2)}, config)
    done = cli("inspect", "a", "b", "c", cwd=tmp_path)
    assert "rope" not in done.stderr


def test_another_rope_is_said_in_any_spelling_and_at_any_depth(tmp_path):
    import torch

    ropes = {
        "a": {"rope_theta": 1e4},
        "b": {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}},
    }
    for name, rope in ropes.items():
        config = {**rope, "text_config": rope}
        save_checkpoint(tmp_path / name, {"x": torch.ones(2)}, config)
    text = config_text("linear", [Path("a"), Path("b")], parameters={"weight": 1})
    (tmp_path / "c.yml").write_text(text)
    for command in (("inspect", "a", "b"), ("inspect", "c.yml"), ("merge", "c.yml", "out")):
        done = cli(*command, cwd=tmp_path)
        for prefix in ("", "text_config."):
            says = f"`{prefix}rope_theta` is 10000.0 in `a` and 1000000.0 in `b`: the output gets"
            assert done.stderr.count(says) == 1
            assert f"`{prefix}rope_type` is default in `a` and yarn in `b`" in done.stderr
