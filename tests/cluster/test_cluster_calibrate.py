"""Calibration on a Ray cluster: the table of one process, also when a worker is killed."""

import csv
import json
import os
import signal
import subprocess

import pytest

from mergeplan.calibration.calibrate import calibrate
from mergeplan.calibration.options import CalibrateOptions
from mergeplan.calibration.setup import Setup
from mergeplan.errors import InputError
from mergeplan.evaluation.options import EvaluationOptions
from tests.support.pools import write_pool

pytestmark = pytest.mark.timeout(300)


def options(ray=None):
    setup = Setup(EvaluationOptions(max_tokens=400), threads=1)
    return CalibrateOptions(methods=("dare",), ks=(1, 2, 5), setup=setup, ray=ray)


def rows_of(run):
    with (run / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    calibrate(write_pool(folder), folder / "run", options())
    return folder


def check_same(found, expected):
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert float(row.pop("loss_nats")) == pytest.approx(float(other["loss_nats"]), abs=1e-6)
        assert float(row.pop("loss_se")) == pytest.approx(float(other["loss_se"]), abs=1e-6)
        assert row == {name: other[name] for name in row}


def test_two_workers_give_the_table_of_one_process(ray, alone, tmp_path):
    done = calibrate(alone / "pool.yml", tmp_path / "run", options("local"))
    assert done.n_measured == len(rows_of(alone / "run")) // 3
    check_same(rows_of(tmp_path / "run"), rows_of(alone / "run"))
    # What a cluster began, one process goes on with.
    again = calibrate(alone / "pool.yml", tmp_path / "run", options())
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

    calibrate(alone / "pool.yml", tmp_path / "run", options("local"), progress=kill_one)
    assert len(killed) == 2
    check_same(rows_of(tmp_path / "run"), rows_of(alone / "run"))


def test_a_node_that_sees_other_files_is_named(ray, tmp_path, monkeypatch):
    from mergeplan.calibration import cluster_executor

    pool = write_pool(tmp_path)
    monkeypatch.setattr(cluster_executor, "on_every_node", lambda *_: {"10.0.0.7": {}})
    with pytest.raises(InputError, match=r"node `10.0.0.7` of the cluster does not see"):
        calibrate(pool, tmp_path / "run", options("local"))
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
    with pytest.raises(InputError, match="model.norm.weight"):
        calibrate(pool, tmp_path / "run", options("local"))
