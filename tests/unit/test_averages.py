"""Averages of checkpoints: weights, order of steps, and what is refused before any work."""

import json

import numpy as np
import pytest

from mergeplan.config.schedule import SCHEDULES, schedule_weights
from mergeplan.config.steps import find_checkpoints
from mergeplan.errors import InputError, MissingInputError
from mergeplan.planning.averages import AverageOptions, average_configs
from mergeplan.reference import averaging

ORACLES = {
    "mean": averaging.mean,
    "weighted": averaging.weighted,
    "ema": lambda run: averaging.ema(run, 0.8),
    "cosine": lambda run: averaging.decayed(run, "cosine"),
    "1-sqrt": lambda run: averaging.decayed(run, "1-sqrt"),
}


@pytest.mark.parametrize("count", [1, 2, 3, 10, 200])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_weights_give_what_the_schedule_imitates(schedule, count):
    weights = schedule_weights(schedule, count, 0.8 if schedule == "ema" else None)
    assert len(weights) == count
    assert min(weights) >= 0
    assert abs(sum(weights) - 1) < 1e-14
    run = np.random.default_rng(count).normal(size=(count, 7)).cumsum(axis=0)
    np.testing.assert_allclose(weights @ run, ORACLES[schedule](run), rtol=0, atol=1e-12)


def test_a_linear_decay_is_the_mean():
    run = np.random.default_rng(0).normal(size=(9, 5)).cumsum(axis=0)
    np.testing.assert_allclose(averaging.decayed(run, "linear"), averaging.mean(run), atol=1e-14)


@pytest.mark.parametrize(
    ("schedule", "decay", "said"),
    [
        ("ema", None, "`decay` is missing"),
        ("ema", 1, "between 0 and 1, found 1"),
        ("ema", 0.0, "between 0 and 1"),
        ("ema", float("nan"), "`decay`: expected a number"),
        ("cosin", None, "expected one of mean, weighted"),
    ],
)
def test_schedules_that_say_no_weights_are_refused(schedule, decay, said):
    with pytest.raises(InputError, match=said):
        schedule_weights(schedule, 3, decay)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Makes empty folders here."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).mkdir(parents=True)

    return make


def test_steps_are_numbers(folders):
    folders("run/step-10", "run/step-2", "run/step-100", "run/step-009")
    assert find_checkpoints(["run/step-*"]) == {
        2: "run/step-2",
        9: "run/step-009",
        10: "run/step-10",
        100: "run/step-100",
    }


def test_a_step_is_found_beside_other_numbers_and_inside_a_path(folders):
    folders("v2/step1000-tokens4B", "v2/step200-tokens1B", "8b/5/hf", "8b/40/hf")
    assert list(find_checkpoints(["v2/*"])) == [200, 1000]
    assert find_checkpoints(["8b/*/hf"]) == {5: "8b/5/hf", 40: "8b/40/hf"}
    assert list(find_checkpoints(["8b/40/hf", "8b/5/hf/"])) == [5, 40]


@pytest.mark.parametrize(
    ("names", "patterns", "said"),
    [
        (["r/step-1", "r/step-01"], ["r/*"], "are the same step"),
        (["r/step-1"], ["r/*", "r/step-1"], "given twice"),
        (["r/step-1", "r/step-2", "r/final"], ["r/*"], "1 name tell.*`r/step-N`.*found `r/final`"),
        (["r/step-1", "r/step-2", "r/step-2.json"], ["r/*"], "found `r/step-2.json`"),
        (["r/a", "r/b"], ["r/*"], "2 names tell no step: expected names such as `step-N`"),
        (["a1/step-9", "a2/step-9"], ["a*/step-9", "a1/*8"], "no folder is named"),
        (["a1/step-9", "a2/step-8"], ["a*/*"], "differ in 2 numbers, which do not grow together"),
    ],
)
def test_names_that_tell_no_step_are_refused(names, patterns, said, folders):
    folders(*names)
    with pytest.raises(InputError, match=said):
        find_checkpoints(patterns)
    with pytest.raises(MissingInputError, match="there is no folder `elsewhere`"):
        find_checkpoints(["elsewhere"])


@pytest.fixture
def run(folders, tmp_path):
    """The steps 10, 20 … 70 of a run, each with one small tensor."""
    from safetensors.numpy import save_file

    for step in range(10, 80, 10):
        folder = tmp_path / "run" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"hidden_size": 2, "use_cache": step > 30}))
        save_file({"x.weight": np.full((2, 2), step, np.float16)}, folder / "model.safetensors")
    return tmp_path / "run"


def steps_of(config):
    return [int(model["model"].rpartition("-")[2]) for model in config["models"]]


def test_windows_count_back_from_the_newest(run):
    def chosen(**options):
        return {
            name: steps_of(config)
            for name, config in average_configs(["run/*"], AverageOptions(**options)).items()
        }

    assert chosen() == {"": [10, 20, 30, 40, 50, 60, 70]}
    assert chosen(last=(3,)) == {"": [50, 60, 70]}
    assert chosen(every=3) == {"": [10, 40, 70]}
    assert chosen(every=2, last=(2,), until=(60,)) == {"": [40, 60]}
    assert chosen(last=(1, 2), until=(30, 40)) == {
        "until-30-last-1": [30],
        "until-30-last-2": [20, 30],
        "until-40-last-1": [40],
        "until-40-last-2": [30, 40],
    }
    assert list(chosen(schedules=("mean", "cosine"))) == ["mean", "cosine"]
    (config,) = average_configs(["run/*"], AverageOptions(("weighted",), (2,))).values()
    assert config == {
        "merge_method": "linear",
        "base_model": "run/step-70",
        "models": [
            {"model": "run/step-60", "parameters": {"weight": 1 / 3}},
            {"model": "run/step-70", "parameters": {"weight": 2 / 3}},
        ],
        "parameters": {"normalize": True},
        "dtype": "float32",
        "out_dtype": "float16",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"last": (8,)}, "`last`: expected 8 checkpoints, found 7"),
        ({"last": (4,), "every": 2, "until": (50,)}, "4 checkpoints up to step 50, .*found 3"),
        ({"until": (55,)}, "there is no step 55"),
        ({"last": (0,)}, "`last`: expected a whole number"),
        ({"last": (2, 2)}, "`last`: a value is given twice"),
        ({"every": 0}, "`every`: expected"),
        ({"decay": 0.5}, "`decay` says nothing"),
        ({"out_dtype": "float64"}, "`out_dtype`: expected one of"),
        ({"schedules": ("ema",)}, "`decay` is missing"),
    ],
)
def test_windows_that_are_not_there_are_refused(options, said, run):
    with pytest.raises(InputError, match=said):
        average_configs(["run/*"], AverageOptions(**options))


def test_another_run_and_folders_without_weights_are_named(run):
    (run / "step-20" / "config.json").write_text('{"hidden_size": 2, "rope_theta": 1}')
    with pytest.raises(InputError, match="step-20/config.json` is of another run.*`rope_theta`"):
        average_configs(["run/*"], AverageOptions())
    assert average_configs(["run/*"], AverageOptions(last=(5,)))  # which that one is not in
    for step in (70, 40):
        (run / f"step-{step}" / "model.safetensors").unlink()
    with pytest.raises(InputError) as error:
        average_configs(["run/*"], AverageOptions(last=(5,)))
    said = " ".join(fault.message for fault in error.value.faults)
    assert "step-40`" in said
    assert "step-70`" in said
