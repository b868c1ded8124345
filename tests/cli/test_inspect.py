"""`mergeplan inspect` as a user meets it."""

import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import save_file

import mergeplan
from mergeplan.config.methods import METHODS
from mergeplan.merging import preflight
from tests.support.checkpoints import save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text

TEBI = 1 << 40


def sparse_checkpoint(folder, tensors, **config):
    """A valid header before terabytes of nothing; `tensors`: dtype, bytes of an element, shape."""
    entries, end = {}, 0
    for name, (dtype, size, shape) in tensors.items():
        start, end = end, end + size * shape[0] * shape[1]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def inspect(*args, cwd=None):
    """Exit code and JSON."""
    run = cli("inspect", "--json", *args, cwd=cwd)
    assert run.returncode in (0, 1), run.stderr
    return run.returncode, json.loads(run.stdout)


def test_what_was_found_can_be_sent_to_another_process(tmp_path):
    for name in ("base", "a"):
        save_checkpoint(tmp_path / name, {"model.norm.weight": torch.ones(4)}, {})
    models = [{"model": str(tmp_path / "a")}]
    config = {"merge_method": "task_arithmetic", "base_model": str(tmp_path / "base")}
    config |= {"models": models, "parameters": {"weight": 1}}
    found = mergeplan.inspect(str(tmp_path / "a"))
    merge = mergeplan.inspect(config).merges[0]
    assert [len(found.checkpoints[0].tensors), len(merge.tensors)] == [1, 1]
    assert pickle.loads(pickle.dumps([found, merge])) == [found, merge]


def test_a_checkpoint_is_counted(tmp_path):
    tensors = {
        "model.embed_tokens.weight": torch.ones(10, 4),
        "lm_head.weight": torch.ones(10, 4),
        "model.norm.weight": torch.ones(4).bfloat16(),
        "ids": torch.arange(3),
    }
    config = {"tie_word_embeddings": True, "architectures": ["XForCausalLM"]}
    save_checkpoint(tmp_path / "m", tensors, config, shards=2)
    code, found = inspect("m", cwd=tmp_path)
    facts = found["checkpoints"][0]
    assert (code, found["fits"], found["problems"]) == (0, True, [])
    # The head that config.json ties to the embedding counts once, and its bytes are there.
    assert (facts["n_params"], facts["n_bytes"]) == (47, 4 * 80 + 2 * 4 + 8 * 3)
    assert facts["head"] == "stored though tied"
    assert "may ignore it" in found["warnings"][0]
    assert [f["name"] for f in facts["files"]] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert [(d["dtype"], d["tensors"], d["n_bytes"]) for d in facts["dtypes"]] == [
        ("F32", 2, 320),
        ("I64", 1, 24),
        ("BF16", 1, 8),
    ]
    assert sum(d["share"] for d in facts["dtypes"]) == pytest.approx(1)
    assert facts["shapes"][0] == {"shape": [10, 4], "tensors": 2}
    assert (facts["architecture"], facts["vocabulary"]) == ("XForCausalLM", 10)
    assert {t["name"] for t in facts["tensors"]} == set(tensors)


def test_the_text_lists_tensors_when_asked(small_models):
    run = cli("inspect", "a", cwd=small_models)
    assert run.returncode == 0
    assert "a: 2 tensors, 53 parameters, 212 B" in run.stdout
    assert "[8, 6]  " not in run.stdout
    run = cli("inspect", "a", "--tensors", cwd=small_models)
    assert ["x", "F32", "[8,", "6]", "model.safetensors"] in [
        line.split() for line in run.stdout.splitlines()
    ]


def test_one_file_is_a_checkpoint(small_models):
    code, found = inspect(small_models / "a" / "model.safetensors")
    assert (code, len(found["checkpoints"][0]["tensors"])) == (0, 2)


def test_what_cannot_be_opened_is_an_error_alone_and_a_problem_beside_others(small_models):
    run = cli("inspect", "nothing", cwd=small_models)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: model `nothing` is not a folder")
    code, found = inspect("a", "nothing", "b", "a", cwd=small_models)
    assert code == 1
    assert [(p["kind"], p["model"]) for p in found["problems"]] == [
        ("open", "nothing"),
        ("open", "a"),
    ]


def test_every_problem_between_checkpoints_is_listed(tmp_path):
    base = {
        "model.embed_tokens.weight": torch.ones(10, 4),
        "lm_head.weight": torch.ones(10, 4),
        "x": torch.ones(3, 3),
        "y": torch.ones(3),
        "steps": torch.arange(3),
    }
    other = {
        "model.embed_tokens.weight": torch.ones(12, 4),
        "x": torch.ones(3, 2),
        "z": torch.ones(1),
        "steps": torch.arange(3, dtype=torch.int32),
    }
    mixed = {**base, "x": torch.ones(3, 3, dtype=torch.int32), "y": torch.ones(3).half()}
    save_checkpoint(tmp_path / "a", base, {"rope_theta": 1e4, "tie_word_embeddings": False})
    save_checkpoint(tmp_path / "b", other, {"rope_theta": 1e6, "tie_word_embeddings": True})
    save_checkpoint(tmp_path / "c", mixed)
    code, found = inspect("a", "b", "c", cwd=tmp_path)
    assert (code, found["fits"]) == (1, False)
    assert {(p["kind"], p["model"], p["tensor"]) for p in found["problems"]} == {
        ("missing", "b", "y"),
        ("extra", "b", "z"),
        ("vocabulary", "b", "model.embed_tokens.weight"),
        ("shape", "b", "x"),
        ("dtype", "b", "steps"),
        ("dtype", "c", "x"),
    }
    warnings = "\n".join(found["warnings"])
    assert "`b`: no head is stored, while `a` has one" in warnings
    assert "`rope_theta` is 10000.0 in `a` and 1000000.0 in `b`" in warnings
    text = cli("inspect", "a", "b", "c", cwd=tmp_path)
    assert text.returncode == 1
    assert sum(line.startswith("problem: ") for line in text.stdout.splitlines()) == 7
    assert "hint: the vocabularies differ" in text.stdout


def test_long_lists_of_problems_are_cut_unless_asked(tmp_path):
    save_checkpoint(tmp_path / "a", {f"t{i}": torch.ones(2) for i in range(20)})
    save_checkpoint(tmp_path / "b", {f"t{i}": torch.ones(3) for i in range(20)})
    short = cli("inspect", "a", "b", cwd=tmp_path).stdout
    assert "problem: 16 more like this in `b`; `--tensors` lists all" in short
    assert cli("inspect", "a", "b", "--tensors", cwd=tmp_path).stdout.count("problem: ") == 20


def test_every_problem_of_a_config_is_listed(small_models):
    config = {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            {"model": "a", "parameters": {"weight": [{"filter": "x", "value": 1}]}},
            {"model": "b", "parameters": {"weight": 1}},
            {"model": "org/name", "parameters": {"weight": 1}},
        ],
    }
    path = small_models / "c.yml"
    path.write_text(yaml.safe_dump(config))
    code, found = inspect("c.yml", cwd=small_models)
    assert code == 1
    assert [(p["kind"], p["model"]) for p in found["merges"][0]["problems"]] == [
        ("open", "org/name")
    ]
    del config["models"][2]
    path.write_text(yaml.safe_dump(config))
    code, found = inspect("c.yml", cwd=small_models)
    problems = found["merges"][0]["problems"]
    assert (code, [p["kind"] for p in problems]) == (1, ["option"])
    assert problems[0]["message"] == "`weight` is missing for model `a`, tensor `y`"
    assert found["merges"][0]["forecast"] is None
    # What only the core finds.
    path.write_text(config_text("linear", ["a", "b"], parameters={"weight": 0}))
    code, found = inspect("c.yml", cwd=small_models)
    problems = found["merges"][0]["problems"]
    assert (code, [p["kind"] for p in problems]) == (1, ["option"])
    assert "the weights sum to zero" in problems[0]["message"]
    # Options and tensors, both at fault.
    path.write_text(config_text("linear", ["a", "c"], per_model=[{"weight": 1}, {}]))
    save_checkpoint(small_models / "c", {"x": torch.ones(8, 6)})
    code, found = inspect("c.yml", cwd=small_models)
    kinds = [p["kind"] for p in found["merges"][0]["problems"]]
    assert (code, kinds) == (1, ["missing", "option"])


def test_a_memory_limit_is_judged_and_the_lowest_one_is_enough(config, small_models):
    code, found = inspect(config, "-j", 2, "--memory-limit", "1MiB")
    assert code == 1
    merge = found["merges"][0]
    assert [p["kind"] for p in merge["problems"]] == ["memory"]
    assert not merge["forecast"]["memory"]["holds"]
    lowest = merge["forecast"]["memory"]["minimum_bytes"]
    assert inspect(config, "-j", 2, "--memory-limit", f"{lowest >> 20}MiB")[0] == 0
    args = ("-j", 2, "--memory-limit", f"{lowest >> 20}MiB")
    assert cli("merge", config, small_models / "out", *args).returncode == 0
    told = cli("inspect", config, "-j", 1, "--memory-limit", "1MiB").stdout
    assert "is too low" in told
    assert "with 1 thread;" in told
    assert "with 1 thread," in told


def test_an_output_in_the_way_and_a_full_disk_are_problems(config, small_models):
    code, found = inspect(config, "--out", small_models / "out")
    assert code == 0
    disk = found["merges"][0]["forecast"]["disk"]
    assert disk["place"] == str(small_models)
    assert disk["free_bytes"] > disk["needed_bytes"] > 0
    code, found = inspect(config, "--out", small_models / "a")
    assert (code, found["merges"][0]["problems"][0]["kind"]) == (1, "output")


@pytest.mark.parametrize("method", METHODS)
def test_terabytes_are_inspected_at_once(method, tmp_path):
    """Reading them would take an hour: only headers are read."""
    spec = METHODS[method]
    rows = {f"x{i}": ("BF16", 2, [1 << 16, 1 << 16]) for i in range(128)}
    names = ["base", "a", "b"]
    for name in names:
        sparse_checkpoint(tmp_path / name, rows)
    options = {"weight": 1.0, "density": 0.5, "t": 0.5, "epsilon": 0.1}
    merge = {
        "merge_method": method,
        "models": [{"model": name} for name in ["a", "b"][: spec.max_inputs or 2]],
        "parameters": {key: value for key, value in options.items() if key in spec.options},
    }
    if spec.base != "none":
        merge["base_model"] = "base"
    (tmp_path / "c.yml").write_text(yaml.safe_dump(merge))
    begun = time.perf_counter()
    code, found = inspect("base", "c.yml", "--out", "out", cwd=tmp_path)
    assert time.perf_counter() - begun < 5
    assert found["checkpoints"][0]["n_params"] == 1 << 39
    merge = found["merges"][0]
    forecast = merge["forecast"]
    inputs = len(merge["models"])
    assert forecast["input_bytes"] == inputs * TEBI
    assert TEBI < forecast["written_bytes"] < TEBI + (1 << 20)
    assert forecast["memory"]["core_least_bytes"] < 1 << 30
    assert 60 < forecast["time"]["from_cache"] < 10**6
    assert forecast["time"]["from_disk"] > (inputs + 1) * 1000
    if forecast["disk"]["free_bytes"] < TEBI:
        assert (code, merge["problems"][0]["kind"]) == (1, "output")


def test_a_merge_that_widens_says_so(tmp_path):
    for name, dtype in (("a", torch.bfloat16), ("b", torch.float16)):
        save_checkpoint(tmp_path / name, {"x": torch.ones(3, dtype=dtype)})
    text = config_text("linear", ["a", "b"], parameters={"weight": 1})
    (tmp_path / "c.yml").write_text(text)
    run = cli("inspect", "c.yml", cwd=tmp_path)
    assert run.returncode == 0
    assert "1 tensors become float32 out of 16-bit inputs" in run.stderr
    assert "1 tensors differ in dtype: `a` BF16, `b` F16" in run.stderr
    assert "all F32" in run.stdout
    (tmp_path / "c.yml").write_text(text + "out_dtype: bfloat16\n")
    assert "become float32" not in cli("inspect", "c.yml", cwd=tmp_path).stderr


def test_names_in_headers_cannot_reach_the_terminal(tmp_path):
    save_checkpoint(tmp_path / "a", {"x\x1b[2J": torch.ones(1)})
    run = cli("inspect", "a", "--tensors", cwd=tmp_path)
    assert "\x1b" not in run.stdout
    assert r"x\x1b[2J" in run.stdout


def test_every_fault_of_a_config_is_listed_with_the_nearest_right_key(small_models):
    path = small_models / "c.yml"
    path.write_text(
        """
merge_methd: ties
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {densty: 0.5, weight: 1, normalize: true}
  - model: b
    paramters: {weight: 1}
parameters: {lambda: "x"}
dtype: float13
"""
    )
    code, found = inspect("c.yml", cwd=small_models)
    problems = found["merges"][0]["problems"]
    assert code == 1
    assert {problem["kind"] for problem in problems} == {"config"}
    text = "\n".join(f"{p['message']} | {p['hint']}" for p in problems)
    for words in (
        "`merge_methd`",
        "did you mean `density`?",
        "`models[0].parameters.normalize` does nothing there",
        "did you mean `parameters`?",
        "`parameters.lambda`",
        "float13",
    ):
        assert words in text
    assert len(problems) == 6
    assert cli("inspect", "c.yml", cwd=small_models).stdout.count("problem: ") == 5


def test_the_value_of_every_option_for_every_tensor_is_listed_when_asked(tmp_path):
    for name in ("base", "a"):
        tensors = {f"model.layers.{i}.mlp.up_proj.weight": torch.ones(2, 2) for i in range(3)}
        save_checkpoint(tmp_path / name, {**tensors, "model.norm.weight": torch.ones(2)})
    (tmp_path / "c.yml").write_text(
        """
merge_method: ties
base_model: base
models:
  - model: a
    parameters:
      density: [1.0, 0.5]
      weight: [{filter: mlp, value: 0.3}, {value: 0.7}]
parameters: {lambda: 1.5}
"""
    )
    code, found = inspect("c.yml", cwd=tmp_path)
    assert code == 0
    tensors = {tensor["tensor"]: tensor for tensor in found["merges"][0]["tensors"]}
    densities = [
        tensors[f"model.layers.{i}.mlp.up_proj.weight"]["each"]["a"]["density"] for i in range(3)
    ]
    assert densities == [1.0, 0.75, 0.5]
    norm = tensors["model.norm.weight"]
    assert (norm["each"]["a"]["weight"], norm["shared"]["lambda"]) == (0.7, 1.5)
    text = cli("inspect", "c.yml", "--tensors", cwd=tmp_path).stdout
    assert "model.layers.1.mlp.up_proj.weight  ties" in text
    assert "lambda 1.5" in text
    assert "a   weight 0.3  density 0.75" in text
    assert "density" not in cli("inspect", "c.yml", cwd=tmp_path).stdout


def test_a_merge_of_names_alone_is_inspected_at_once_and_without_mergekit(small_models):
    (small_models / "c.yml").write_text(config_text("linear", ["a", "b"], parameters={"weight": 1}))
    code = (
        "import sys; from mergeplan.inspection.inspect import inspect;"
        "assert inspect(['c.yml']).fits;"
        "assert not {'mergekit', 'torch', 'transformers'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=small_models, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()


def test_a_merge_that_merge_would_refuse_is_not_said_to_run(config, demo_pool, monkeypatch):
    out = config.parent / "out"
    assert cli("inspect", config, "--out", out).stdout.endswith("this merge can run\n")
    (config.parent / "out.partial").mkdir()
    left = cli("inspect", config, "--out", out)
    assert (left.returncode, "can run" in left.stdout) == (1, False)
    assert cli("merge", config, out).returncode == 1
    # A dtype that is left to mergekit's executor, which takes memory of its own.
    models = [demo_pool / name for name in ("js", "md")]
    config.write_text(config_text("linear", models, parameters={"weight": 1}, dtype="float64"))
    assert cli("inspect", config).stdout.endswith("this merge can run\n")
    monkeypatch.setattr(preflight, "available_bytes", lambda: 1)
    short = cli("inspect", config)
    assert (short.returncode, "can run" in short.stdout) == (1, False)
    assert "are left to mergekit's executor, and the free memory is too low" in short.stdout


def test_an_adapter_shows_its_rank_alpha_and_targets(small_models):
    folder = small_models / "lora"
    folder.mkdir()
    names = [f"layers.0.{kind}_proj" for kind in ("q", "v")]
    save_checkpoint(small_models / "m", {f"{name}.weight": torch.ones(4, 4) for name in names})
    factors = {"A": torch.ones(2, 4), "B": torch.ones(4, 2)}
    tensors = {
        f"base_model.model.{name}.lora_{key}.weight": value.clone()
        for name in names
        for key, value in factors.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 16}
    settings["base_model_name_or_path"] = str(small_models / "m")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    said = "adapter    rank 2, alpha 16, on 2 modules: `q_proj`, `v_proj`\n"
    assert said in cli("inspect", folder).stdout
    code, found = inspect(folder)
    assert (code, found["checkpoints"][0]["adapter"]["ranks"]) == (0, [2])
    # As trainers write it, from the folder that both lie in.
    (folder / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "m", "use_rslora": True})
    )
    said = "rank 2, alpha 16 (rsLoRA: over the root of the rank), on 2 modules"
    assert said in cli("inspect", folder).stdout


def test_models_that_cannot_be_opened_are_counted_apart(config):
    shutil.rmtree(config.parent / "a")
    said = cli("inspect", config)
    assert said.returncode == 1
    assert re.search(r", \d models? and 1 that cannot be opened\n", said.stdout)


def test_a_model_without_an_adapter_has_none(small_models):
    save_checkpoint(small_models / "m", {"w.weight": torch.ones(4, 4)})
    assert inspect(small_models / "m")[1]["checkpoints"][0]["adapter"] is None


def test_a_config_in_the_place_of_a_model_is_called_that(config):
    run = cli("diff", config, config.parent / "a")
    assert run.returncode == 1
    assert f"error: `{config}` is a YAML file, and no model\n" in run.stderr
    assert f"hint: `mergeplan merge {config} OUT_DIR` makes the model of a merge's" in run.stderr


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["inspect", "--tensorz"], "no such option `--tensorz`", "see `mergeplan inspect --help`"),
        (["inspect"], "missing argument `PATH...`", "see `mergeplan inspect --help`"),
        (
            ["merge", "c.yml", "out", "--memory-limit", "4x"],
            "invalid value for `--memory-limit`: expected bytes such as 5GB or 512MiB, found `4x`",
            "see `mergeplan merge --help`",
        ),
        (["inspec"], "no such command `inspec`; did you mean", "see `mergeplan --help`"),
    ],
)
def test_what_click_refuses_is_said_as_we_say_it(words, message, hint):
    run = cli(*words)
    assert (run.returncode, run.stdout) == (2, "")
    # Between its versions click puts a colon before the option's name, or quotes around it.
    assert run.stderr.replace(": --tensorz", " `--tensorz`").startswith(f"error: {message}")
    assert run.stderr.endswith(f"\n\nhint: {hint}\n")


def test_without_arguments_the_help_is_shown():
    run = cli()
    assert "\nCommands:\n" in run.stdout + run.stderr
