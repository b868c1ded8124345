"""A real Ray cluster: what it makes is that of one process, also when workers die."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from mergeplan.calibration.calibrate import calibrate
from mergeplan.calibration.options import CalibrateOptions
from mergeplan.calibration.setup import Setup
from mergeplan.config.config import parse_config
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.merging.merge import merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.system.files import lock
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.tune import tune
from tests.support.checkpoints import weights_of
from tests.support.merges import config_text
from tests.support.pools import write_pool
from tests.support.runs import make_pool
from tests.support.shares import spread

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("cluster") / "pool", 6, (300, 700))


def wanted(pool, out):
    return [MergeRequest(parse_config(pool.config("dare_ties")), out)]


def options(pool, **more):
    return MergeOptions(max_shard_bytes=pool.shard_bytes, threads=1, seed=3, **more)


def test_shards_of_a_cluster_are_those_of_one_process(ray, pool, tmp_path):
    from mergeplan.merging.cluster_runner import ClusterRunner

    [alone] = merge_many(wanted(pool, tmp_path / "alone"), options(pool))
    [spread] = merge_many(
        wanted(pool, tmp_path / "spread"), options(pool), runner=ClusterRunner(ray)
    )
    assert len(alone.files) > 1
    assert spread.files == alone.files
    assert weights_of(tmp_path / "spread") == weights_of(tmp_path / "alone")
    assert not (tmp_path / "spread.partial").exists()
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in (tmp_path / "spread").iterdir()} == names


def test_a_driver_that_was_stopped_finds_the_whole_shards_again(ray, pool, tmp_path):
    from mergeplan.merging.cluster_runner import ClusterRunner

    merge_many(wanted(pool, tmp_path / "alone"), options(pool))
    seen = []

    def stop(done, total):
        seen.append(done)
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_many(
            wanted(pool, tmp_path / "out"), options(pool), progress=stop, runner=ClusterRunner(ray)
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(SurroundingsError, match="an earlier run left"):
        merge_many(wanted(pool, tmp_path / "out"), options(pool), runner=ClusterRunner(ray))
    # Its workers are gone with the driver.
    merges, resumed = wanted(pool, tmp_path / "out"), options(pool, resume=True)
    [report] = merge_many(merges, resumed, runner=ClusterRunner(ray))
    assert report.resumed_blocks > 0
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "alone")


def test_workers_are_gone_before_a_driver_that_was_stopped_is(ray, pool, tmp_path):
    """Before its first whole shard it leaves nothing: the next run makes the same places anew."""
    from mergeplan.merging import cluster_runner

    original, begun = cluster_runner.merge_shard, tmp_path / "begun"

    def goes_on(name, folder, threads, memory_bytes, run, method):
        own = folder / "shards" / name
        own.mkdir(parents=True, exist_ok=True)
        with lock(own, "worker"):
            begun.touch()
            time.sleep(60)
        return original(name, folder, threads, memory_bytes, run, method)

    def stop(done, total):
        if begun.exists():
            raise KeyboardInterrupt

    runner = cluster_runner.ClusterRunner(ray)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_runner, "merge_shard", goes_on)
        with pytest.raises(KeyboardInterrupt):
            merge_many(wanted(pool, tmp_path / "out"), options(pool), progress=stop, runner=runner)
    assert not (tmp_path / "out.partial").exists()
    [report] = merge_many(wanted(pool, tmp_path / "out"), options(pool), runner=runner)
    assert report.resumed_blocks == 0


@pytest.mark.parametrize("left", [(), ("journal.inputs",), ("journal", "journal.inputs")])
def test_the_shard_of_a_killed_worker_is_done_again(left, ray, pool, tmp_path):
    """At any moment: what was read has a journal of its own."""
    from mergeplan.merging import cluster_runner

    merge_many(wanted(pool, tmp_path / "alone"), options(pool))
    killed = tmp_path / "killed"
    original = cluster_runner.merge_shard

    def dies_once(name, folder, threads, memory_bytes, run, method):
        if not killed.exists():
            killed.write_text(name)
            time.sleep(0.1)
            for file in left:
                own = folder / "shards" / name
                own.mkdir(parents=True, exist_ok=True)
                (own / file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(name, folder, threads, memory_bytes, run, method)

    runner = cluster_runner.ClusterRunner(ray)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_runner, "merge_shard", dies_once)
        merge_many(wanted(pool, tmp_path / "out"), options(pool), runner=runner)
    assert killed.exists()
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "alone")


def test_inputs_at_fault_are_reported_as_in_one_process(ray, small_models, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    from mergeplan.errors import ContentError
    from mergeplan.merging.cluster_runner import ClusterRunner

    file = small_models / "a" / "model.safetensors"
    tensors = load_file(file)
    tensors["x"][0, 0] = torch.nan
    save_file(tensors, file)
    text = config_text(
        "ties", [small_models / "a"], base=small_models / "base", parameters={"weight": 1}
    )
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(ContentError, match="NaN"):
        merge_many([MergeRequest(tmp_path / "c.yml", tmp_path / "out")], runner=ClusterRunner(ray))
    assert not (tmp_path / "out.partial").exists()


def calibration(ray=None, threads=1):
    setup = Setup(EvaluationOptions(max_tokens=400), threads=threads)
    return CalibrateOptions(methods=("dare",), ks=(1, 2, 5), setup=setup, ray=ray)


def rows_of(run):
    with (run / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    calibrate(write_pool(folder), folder / "run", calibration())
    return folder


def check_same(found, expected):
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert float(row.pop("loss_nats")) == pytest.approx(float(other["loss_nats"]), abs=1e-6)
        assert float(row.pop("loss_se")) == pytest.approx(float(other["loss_se"]), abs=1e-6)
        assert row == {name: other[name] for name in row}


@pytest.mark.parametrize("threads", spread([2, 1], 1))
def test_workers_give_the_table_of_one_process(ray, alone, tmp_path, threads):
    """One worker on two cores, or two of them."""
    options = calibration("local", threads)
    done = calibrate(alone / "pool.yml", tmp_path / "run", options)
    assert done.n_measured == len(rows_of(alone / "run")) // 3
    check_same(rows_of(tmp_path / "run"), rows_of(alone / "run"))
    # What a cluster began, one process goes on with.
    again = calibrate(alone / "pool.yml", tmp_path / "run", calibration())
    assert again.n_measured == 0


@pytest.mark.long
def test_a_killed_worker_loses_nothing(ray, alone, tmp_path):
    killed = []

    def kill_one(done, planned):
        if len(killed) < 2 and done > len(killed) * planned / 3:
            processes = subprocess.run(
                ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
            ).stdout.splitlines()
            workers = [line.split()[0] for line in processes if "_RemoteWorker" in line]
            os.kill(int(workers[0]), signal.SIGKILL)
            killed.append(workers[0])

    calibrate(alone / "pool.yml", tmp_path / "run", calibration("local"), progress=kill_one)
    assert len(killed) == 2
    check_same(rows_of(tmp_path / "run"), rows_of(alone / "run"))


def test_a_node_that_sees_other_files_is_named(ray, tmp_path, monkeypatch):
    from mergeplan.calibration import crew

    pool = write_pool(tmp_path)
    monkeypatch.setattr(crew, "on_every_node", lambda *_: {"10.0.0.7": {}})
    with pytest.raises(InputError, match=r"node `10.0.0.7` of the cluster does not see"):
        calibrate(pool, tmp_path / "run", calibration("local"))
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_faults_of_a_worker_reach_the_user(ray, tmp_path):
    from safetensors.torch import load_file, save_file

    from tests.support.checkpoints import save_checkpoint
    from tests.support.settings import DEMO_POOL

    config = json.loads((DEMO_POOL / "html" / "config.json").read_text())
    tensors = load_file(DEMO_POOL / "html" / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_checkpoint(tmp_path / "bad", tensors, config)
    save_file(tensors, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    experts = {"bad": str(tmp_path / "bad"), "js": str(DEMO_POOL / "js")}
    pool = write_pool(tmp_path, sizes=[{"base": str(DEMO_POOL / "base"), "experts": experts}])
    options = replace(calibration("local"), ks=(1, 2))
    with pytest.raises(InputError, match=r"model\.norm\.weight"):
        calibrate(pool, tmp_path / "run", options)


def tuning(by, **more):
    setup = Setup(EvaluationOptions(max_tokens=1500), threads=1)
    return TuneOptions(by=by, budget=4, setup=setup, **more)


def points_of(run):
    """Points by their weights and what was measured; one that was measured twice stands twice."""
    lines = (run / "points.jsonl").read_text().splitlines()
    return sorted(json.dumps(json.loads(line) | {"seconds": 0}) for line in lines)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    pool = write_pool(folder, n_texts=None)
    tune(pool, folder / "run", tuning("layer"))
    return folder


@pytest.mark.long
def test_workers_tune_as_one_process(ray, tuned, tmp_path):
    """To the last digit; a cluster goes on with what one process began, and the other way."""
    pool, run = tuned / "pool.yml", tmp_path / "run"
    shutil.copytree(tuned / "run", run)
    lines = (run / "points.jsonl").read_text().splitlines(keepends=True)
    for ray_at, n_kept in (("local", 1), (None, 3)):
        (run / "points.jsonl").write_text("".join(lines[:n_kept]))
        again = tune(pool, run, tuning("layer", ray=ray_at))
        assert again.kept == n_kept
        assert points_of(run) == points_of(tuned / "run")
        assert (run / "merge.yml").read_bytes() == (tuned / "run" / "merge.yml").read_bytes()
        lines = (run / "points.jsonl").read_text().splitlines(keepends=True)


@pytest.mark.long
def test_tuning_loses_nothing_with_a_killed_worker(ray, tuned, tmp_path):
    killed = []

    def kill_one(said):
        processes = subprocess.run(
            ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        workers = [line.split()[0] for line in processes if "_RemoteWorker" in line]
        os.kill(int(workers[len(killed) % len(workers)]), signal.SIGKILL)
        killed.append(said)

    tune(tuned / "pool.yml", tmp_path / "run", tuning("layer", ray="local"), say=kill_one)
    assert len(killed) >= 2
    assert points_of(tmp_path / "run") == points_of(tuned / "run")
    one = json.loads((tmp_path / "run" / "tune.json").read_text())
    other = json.loads((tuned / "run" / "tune.json").read_text())
    differs = {name for name in one if one[name] != other[name]}
    assert differs <= {"seconds", "config", "next"}
