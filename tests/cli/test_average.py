"""`average`: the oracle's numbers, and everything else as `merge` has it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mergeplan.reference import averaging
from tests.support.checkpoints import weights_of
from tests.support.commands import COMMAND, cli, cli_process

SHAPES = {"layers.0.weight": (40, 30), "layers.1.weight": (7,), "norm.weight": (1, 3)}


def make_run(folder, steps, dtype="F32", shapes=SHAPES):
    """Checkpoints of one run in random directions; their values, by tensor, in float64."""
    values = np.random.default_rng(7)
    run = {name: [] for name in shapes}
    for step in steps:
        place = folder / f"step-{step}"
        place.mkdir(parents=True)
        tensors = {n: values.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        if dtype == "F16":
            tensors = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
        (place / "config.json").write_text(json.dumps({"hidden_size": 30, "step": 0}))
        for name, tensor in tensors.items():
            run[name].append(tensor.astype(np.float64))
    return run


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_each_schedule_gives_the_oracles_numbers_in_one_read(dtype, tmp_path):
    run = make_run(tmp_path / "run", range(90, 110), dtype)
    schedules = ("mean", "weighted", "ema", "cosine", "1-sqrt")
    words = [word for name in schedules for word in ("--schedule", name)]
    command = ("average", tmp_path / "run" / "step-*", "-o", tmp_path / "out", "--decay", 0.7)
    done = cli(*command, *words, "--json")
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)["merges"]
    assert len(reports) == 5
    oracles = {
        "mean": averaging.mean,
        "weighted": averaging.weighted,
        "ema": lambda values: averaging.ema(values, 0.7),
        "cosine": lambda values: averaging.decayed(values, "cosine"),
        "1-sqrt": lambda values: averaging.decayed(values, "1-sqrt"),
    }
    for name, oracle in oracles.items():
        out = load_file(tmp_path / "out" / name / "model.safetensors")
        for tensor, values in run.items():
            found, expected = out[tensor], oracle(values)
            # 20 fused sums in float32, and one rounding of the output.
            bound = 20 * 2.0**-24 * np.abs(values).max() + (
                2.0**-11 * np.abs(expected) if dtype == "F16" else 0
            )
            assert found.dtype == (np.float16 if dtype == "F16" else np.float32)
            assert (np.abs(found - expected) <= bound).all(), (name, tensor)
        assert cli("verify", tmp_path / "out" / name).returncode == 0
    alone = cli(*command[:3], tmp_path / "one", "--schedule", "cosine", "-j", 1)
    assert alone.returncode == 0, alone.stderr
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "out" / "cosine")


def test_what_it_prints_is_the_merge(tmp_path):
    make_run(tmp_path / "run", (8, 9, 10))
    command = ("average", "run/step-*", "--schedule", "1-sqrt")
    printed = cli(*command, "--print-config", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    (tmp_path / "plain.yml").write_text(printed.stdout)
    assert cli("merge", "plain.yml", "plain", cwd=tmp_path).returncode == 0
    assert cli(*command, "-o", "out", cwd=tmp_path).returncode == 0
    assert weights_of(tmp_path / "plain") == weights_of(tmp_path / "out")
    dry = cli(*command, "-o", "dry", "--dry-run", "--json", cwd=tmp_path)
    assert dry.returncode == 0
    assert len(json.loads(dry.stdout)["plans"]) == 1
    assert not (tmp_path / "dry").exists()


def test_a_stopped_average_goes_on(tmp_path):
    make_run(tmp_path / "run", range(5))
    command = ("average", "run/*", "-o", "out", "--last", 3, "--last", 5)
    whole = cli(*command[:3], "whole", *command[4:], cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    stopped = cli_process(*command, cwd=tmp_path, env={"MERGEPLAN_FAULT": "write:2:kill"})
    assert stopped.returncode != 0
    assert cli(*command, cwd=tmp_path).returncode == 1
    assert cli(*command, "--resume", cwd=tmp_path).returncode == 0
    assert cli(*command, cwd=tmp_path).returncode == 1  # something is there
    assert cli(*command, "--overwrite", cwd=tmp_path).returncode == 0
    for name in ("last-3", "last-5"):
        assert weights_of(tmp_path / "out" / name) == weights_of(tmp_path / "whole" / name)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_many_checkpoints_need_few_open_files(tmp_path):
    import resource

    make_run(tmp_path / "run", range(60))
    command = ("average", "run/*", "--last", "60", "--last", "7", "-q", "-j", "2", "-o")
    assert cli(*command, "whole", cwd=tmp_path).returncode == 0
    few = subprocess.run(
        [*COMMAND, *command, "few"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)),
    )
    assert few.returncode == 0, few.stderr
    for name in ("last-60", "last-7"):
        assert weights_of(tmp_path / "few" / name) == weights_of(tmp_path / "whole" / name)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "missing option `-o`"),
        (("-o", "out", "--schedule", "ema"), 1, "`decay` is missing"),
        (("-o", "out", "--schedule", "line"), 2, "line"),
        (("-o", "out", "--last", 9), 1, "expected 9 checkpoints, found 3"),
        (("-o", "run/step-1/out"), 1, "step-1"),
    ],
)
def test_misuse_is_told_before_any_work(words, code, said, tmp_path):
    make_run(tmp_path / "run", (1, 2, 3))
    done = cli("average", "run/step-*", *words, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_shapes_and_other_tensors_are_refused(tmp_path):
    make_run(tmp_path / "run", (1, 2))
    make_run(tmp_path / "run", (3,), shapes={**SHAPES, "norm.weight": (1, 4)})
    done = cli("average", "run/step-*", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "norm.weight" in done.stderr
    make_run(tmp_path / "run", (4,), shapes={**SHAPES, "more.weight": (1, 4)})
    done = cli("average", "run/step-[124]", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "more.weight" in done.stderr
    assert not [*tmp_path.glob("out*")]
