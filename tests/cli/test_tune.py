"""`mergeplan tune`: weights by gradients, from a pool to a YAML."""

import json
import shlex
import shutil
import sys

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.status import tune_status
from mergeplan.tuning.tune import tune
from tests.support.commands import cli
from tests.support.pools import NAMES, write_pool
from tests.support.settings import DEMO_POOL


def pool_of(folder, **changes):
    return write_pool(folder, n_texts=None, **changes)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A pool, its run, and what the run printed."""
    folder = tmp_path_factory.mktemp("tuned")
    pool = pool_of(folder)
    done = cli("tune", pool, "-o", folder / "run", "--by", "layer", "-j", 1, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_tuned_weights_are_better_on_documents_that_had_no_part_in_it(tuned):
    folder, found = tuned
    assert found["experts"] == list(NAMES)
    assert np.shape(found["weights"]) == (len(NAMES), len(found["groups"]))
    assert [one["name"] for one in found["rivals"]] == ["the base", "equal weights"]
    assert all(one["low"] > 0 for one in found["rivals"])
    # What weights do sums to what the merge does, on the documents that give slopes.
    points = list(map(json.loads, (folder / "run" / "points.jsonl").read_text().splitlines()))
    base = points[0]["losses"]
    last = next(one["losses"] for one in points[::-1] if one["losses"])
    for name, effect in found["effects"].items():
        assert abs(np.sum(effect) - (last[name] - base[name])) < 0.2 * abs(np.sum(effect))
    config = yaml.safe_load((folder / "run" / "merge.yml").read_text())
    assert config["merge_method"] == "task_arithmetic"
    kept = json.loads((folder / "run" / "tune.json").read_text())
    assert kept["weights"] == found["weights"]


def test_a_run_that_was_killed_goes_on_to_the_same_end(tuned, tmp_path):
    folder, found = tuned
    run = tmp_path / "run"
    run.mkdir()
    (run / "tuning.json").write_bytes((folder / "run" / "tuning.json").read_bytes())
    lines = (folder / "run" / "points.jsonl").read_text().splitlines(keepends=True)
    (run / "points.jsonl").write_text("".join(lines[:2]) + lines[2][:50])
    done = cli("tune", folder / "pool.yml", "-o", run, "--by", "layer", "-j", 1, "-q")
    assert done.returncode == 0, done.stderr
    again = json.loads((run / "tune.json").read_text())
    assert again["weights"] == found["weights"]
    kept = (run / "points.jsonl").read_text().splitlines(keepends=True)
    assert kept[:2] == lines[:2]
    assert len(kept) == len(lines)
    assert "could be left out" in done.stdout or not any(one["free"] for one in again["left_out"])
    assert f"next: {again['next']}" in done.stdout
    words = shlex.split(again["next"].replace("OUT_DIR", str(tmp_path / "merged")))
    merged = cli(*words[1:])
    assert merged.returncode == 0, merged.stderr


def test_a_finished_run_measures_nothing_again_and_keeps_to_its_options(tuned):
    folder, _ = tuned
    before = (folder / "run" / "points.jsonl").read_bytes()
    other = folder / "other.yml"
    other.write_text((folder / "run" / "merge.yml").read_text())
    same = ("tune", folder / "pool.yml", "-o", folder / "run", "-j", 1, "-q")
    done = cli(*same, "--by", "layer", "--beside", other)
    assert done.returncode == 0, done.stderr
    assert f"0.0000 better than {other}" in done.stdout
    assert (folder / "run" / "points.jsonl").read_bytes() == before
    done = cli(*same, "--by", "expert")
    assert done.returncode == 1
    assert "`--by`" in done.stderr


def test_elected_signs_are_tuned_by_slopes_that_say_what_they_are(tmp_path):
    pool = pool_of(tmp_path, methods={"ties": {"density": 0.5, "lambda": 0.7}})
    said = []
    found = tune(pool, tmp_path / "run", TuneOptions(total=1.0, budget=3), say=said.append)
    assert found.elects
    assert found.bounds == (0.0, 2.0)
    assert np.allclose(found.weights.sum(0), 1.0, atol=1e-3)
    base, equal = found.rivals
    assert base.gain > 0
    assert equal.gain > 0
    assert sum(one.promised is not None for one in found.steps) == found.points - 2 > 0
    assert 0.3 < found.kept_promises < 3
    assert "that slopes promised" in said[0]
    assert "slopes are approximate: `ties` elects signs" in found.summary()
    config = yaml.safe_load((tmp_path / "run" / "merge.yml").read_text())
    assert config["parameters"]["normalize"] is False
    # Along lambda the loss goes on as it went from the base: a valley whose first slope is known.
    points = list(map(json.loads, (tmp_path / "run" / "points.jsonl").read_text().splitlines()))
    for one in points[1:]:
        if one["slopes"]:
            whole = {n: np.sum(np.multiply(s, one["weights"])) for n, s in one["slopes"].items()}
            for name, value in one["along_lambda"].items():
                assert abs(0.7 * value - whole[name]) < 0.1 * max(map(abs, whole.values()))


def test_what_has_changed_is_named_before_anything_is_measured(tuned, tmp_path):
    folder, _ = tuned
    same = ("-o", folder / "run", "--by", "layer", "-j", 1, "-q")
    before = (folder / "run" / "points.jsonl").read_bytes()
    pool = pool_of(tmp_path)
    data = json.loads(pool.read_text())
    size = data["sizes"][0]
    turned = {**size, "experts": dict(reversed(size["experts"].items()))}
    # Points keep weights by place.
    pool.write_text(json.dumps({**data, "sizes": [turned]}))
    assert "the order of the experts has changed" in cli("tune", pool, *same).stderr
    pool.write_text(json.dumps(data))
    text = tmp_path / "texts" / "html.jsonl"
    text.write_text("".join(text.read_text("utf-8").splitlines(keepends=True)[:-1]))
    done = cli("tune", pool, *same)
    assert "the text to report has changed" in done.stderr
    assert "--half" not in done.stderr
    assert (folder / "run" / "points.jsonl").read_bytes() == before


def test_a_dry_run_writes_nothing(tuned, tmp_path):
    folder, _ = tuned
    args = ("tune", folder / "pool.yml", "-o", tmp_path / "run", "--by", "layer,kind", "--dry-run")
    done = cli(*args, "--json")
    found = json.loads(done.stdout)
    assert found["unknowns"] == len(NAMES) * len(found["groups"])
    assert found["reads"] == 1
    assert "45 weights in 9 groups" in cli(*args).stdout
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_tuned_is_refused_before_any_work(tmp_path):
    pool = pool_of(tmp_path)
    run = tmp_path / "run"

    def refused(*more, pool=pool, code=1):
        done = cli("tune", pool, "-o", run, "-j", 1, *more)
        assert done.returncode == code, done.stderr
        assert not run.exists()
        return done.stderr

    assert "no domain `java`" in refused("--domains", "java")
    assert "gradients take" in refused("--memory-limit", "20MB")
    assert "documents or groups" in refused("--max-tokens", "300")
    assert "sum to 99" in refused("--sum", "99")
    assert "in order" in refused("--bounds", "2,1")
    assert "expected two numbers" in refused("--bounds", "2", code=2)
    nothing = write_pool(tmp_path / "ties", methods={"ties": {"lambda": 0}})
    assert "lambda of 0" in refused(pool=nothing)
    assert "no such" in refused("--beside", tmp_path / "none.yml")
    assert "no such" in refused("--beside", tmp_path / "none.yml", "--dry-run")
    few = write_pool(tmp_path / "few")
    assert "fall" in refused(pool=few) or "documents or groups" in refused(pool=few)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("x")
    done = cli("tune", pool, "-o", tmp_path / "mine")
    assert "is no run of `tune`" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note.txt"]


def test_without_torch_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = cli("tune", pool_of(tmp_path), "-o", tmp_path / "run")
    assert done.returncode == 1
    assert "needs torch" in done.stderr
    assert not (tmp_path / "run").exists()


def test_fixed_sums_and_the_worst_domain_are_kept_to(tmp_path):
    pool = pool_of(tmp_path, methods={"dare": {"density": 0.7}})
    more = ("--worst", "--sum", "1", "--bounds", "0,1", "--budget", "4", "--keep", "html<=2.2")
    more += ("--keep", "python<=0.1")
    done = cli("tune", pool, "-o", tmp_path / "run", "-j", 1, "--json", "--seed", 3, *more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    weights = np.array(found["weights"])
    assert np.allclose(weights.sum(0), 1, atol=1e-4)
    assert weights.min() >= 0
    assert any("`--keep python<=0.1` does not hold there" in text for text in found["warnings"])
    assert found["method"] == "dare"
    assert yaml.safe_load((tmp_path / "run" / "merge.yml").read_text())["random_seed"] == 3


def test_a_tuning_says_how_it_stands(tuned, tmp_path):
    folder = tuned[0] / "run"
    # As it is now: an earlier test may have gone on in it, beside one more merge.
    found = json.loads((folder / "tune.json").read_text())
    stands = tune_status(folder)
    assert stands.state == "finished"
    assert stands.value == pytest.approx(found["value"])
    assert stands.with_slopes >= found["points"]
    assert stands.next_command == found["next"]
    told = cli("status", folder, "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["gains"].keys() >= {one["name"] for one in found["rivals"]}
    half = tmp_path / "half"
    half.mkdir()
    for name in ("tuning.json", "points.jsonl", "tune.json"):
        (half / name).write_bytes((folder / name).read_bytes())
    record = json.loads((folder / "status.json").read_text())
    (half / "status.json").write_text(json.dumps({**record, "ended": False}))  # begun again, killed
    said = cli("status", half).stdout
    assert "stopped" in said
    assert "no weights yet" in said


def test_values_that_are_not_finite_are_told_without_an_option_that_is_not_there(tmp_path):
    pool = pool_of(tmp_path)
    expert = tmp_path / "nan"
    shutil.copytree(DEMO_POOL / NAMES[0], expert)
    tensors = load_file(expert / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, expert / "model.safetensors", metadata={"format": "pt"})
    text = yaml.safe_load(pool.read_text())
    text["sizes"][0]["experts"][NAMES[0]] = str(expert)
    pool.write_text(yaml.safe_dump(text))
    done = cli("tune", pool, "-o", tmp_path / "run")
    assert done.returncode == 1
    assert "--allow-nonfinite" not in done.stderr
    assert "leave that model out" in done.stderr
