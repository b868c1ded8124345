"""A merge spread over a Ray cluster: the same files, also when a worker is killed."""

import os
import signal
import time

import pytest

from mergeplan.config.config import parse_config
from mergeplan.errors import SurroundingsError
from mergeplan.merging.merge import merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from tests.support.checkpoints import weights_of
from tests.support.merges import config_text
from tests.support.runs import make_pool

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
    merges, resumed = wanted(pool, tmp_path / "out"), options(pool, resume=True)
    deadline = time.monotonic() + 60
    while True:
        try:
            [report] = merge_many(merges, resumed, runner=ClusterRunner(ray))
            break
        except SurroundingsError as error:
            # The driver is gone; a worker may still be at the shard that it was given.
            if "another worker is working" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    assert report.resumed_blocks > 0
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "alone")


def test_the_shard_of_a_killed_worker_is_done_again(ray, pool, tmp_path):
    from mergeplan.merging import cluster_runner

    merge_many(wanted(pool, tmp_path / "alone"), options(pool))
    killed = tmp_path / "killed"
    original = cluster_runner._merge_shard

    def dies_once(plan_json, name, folder, threads, memory_bytes):
        if not killed.exists():
            killed.write_text(name)
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(plan_json, name, folder, threads, memory_bytes)

    runner = cluster_runner.ClusterRunner(ray)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_runner, "_merge_shard", dies_once)
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
