"""Shards of a merge that a cluster began: what crosses, and what a machine alone makes of it."""

import json
import os
import pickle

import pytest

from mergeplan.checkpoints.plan_models import Listed, ListedTensor, Scaled, Scales, cut_to
from mergeplan.config.config import parse_config
from mergeplan.errors import SurroundingsError
from mergeplan.merging.manifest import load_manifest
from mergeplan.merging.merge import merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.shards import lock_of, merge_shard, record_of, run_of, unlike, write_plans
from mergeplan.system.writing import write_durably
from tests.support.checkpoints import weights_of
from tests.support.merges import config_text
from tests.support.runs import make_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("shards") / "pool", 6, (100, 70))


def merge_by(runner, pool, out, **more):
    options = MergeOptions(max_shard_bytes=pool.shard_bytes, threads=1, seed=3, **more)
    return merge_many(
        [MergeRequest(parse_config(pool.config("dare_ties")), out)], options, runner=runner
    )[0]


def one_shard(checked, works, progress, watch):
    """A cluster that is lost after its first shard."""
    [one], [work] = checked.merges, works.values()
    write_plans(one, work.folder)
    merge_shard(one.prepared.files[0][0], work.folder, 1, 1 << 28, run_of(work.folder))
    write_durably(work.journal, "shards", replace=True)
    raise SurroundingsError("the head of the Ray cluster does not answer")


def test_a_machine_alone_finishes_what_a_cluster_began(pool, tmp_path):
    alone = merge_by(None, pool, tmp_path / "alone")
    assert len(alone.files) > 1
    with pytest.raises(SurroundingsError, match="head"):
        merge_by(one_shard, pool, tmp_path / "out")
    again = merge_by(None, pool, tmp_path / "out", resume=True)
    assert again.resumed_blocks > 0
    assert again.read_bytes < alone.read_bytes
    assert weights_of(tmp_path / "out") == weights_of(tmp_path / "alone")
    manifests = [load_manifest(tmp_path / name) for name in ("out", "alone")]
    assert manifests[0].tensors == manifests[1].tensors
    assert manifests[0].inputs_sha256 == manifests[1].inputs_sha256


def test_what_ray_carries_does_not_grow_with_tensors(tmp_path):
    sent = []

    def look(checked, works, progress, watch):
        [one], [work] = checked.merges, works.values()
        write_plans(one, work.folder)
        run, name = run_of(work.folder), one.prepared.files[0][0]
        given = (name, work.folder, 1, 1 << 28, run)
        sent.append(len(pickle.dumps((given, merge_shard(*given)))))
        raise SurroundingsError("seen")

    for tensors in (2, 200):
        pool = make_pool(tmp_path / f"{tensors:03}", tensors, (8, 8))
        with pytest.raises(SurroundingsError, match="seen"):
            merge_by(look, pool, tmp_path / f"{tensors:03}-out")
    assert abs(sent[1] - sent[0]) < 10


def test_a_node_names_the_first_path_that_is_not_the_drivers(pool, tmp_path):
    found = []

    def look(checked, works, progress, watch):
        [one], [work] = checked.merges, works.values()
        run = run_of(work.folder)
        found.append(unlike(work.folder, run))
        write_plans(one, work.folder)
        found.append(unlike(work.folder, run))
        found.append(unlike(work.folder, (0, *run[1:])))
        input_ = pool.folder / "b" / "model.safetensors"
        before = input_.stat()
        os.utime(input_, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        found.append(unlike(work.folder, run))
        os.utime(input_, ns=(before.st_atime_ns, before.st_mtime_ns))
        raise SurroundingsError("seen")

    with pytest.raises(SurroundingsError, match="seen"):
        merge_by(look, pool, tmp_path / "out")
    folder = str(tmp_path / "out.partial")
    assert found == [folder, None, folder, str(pool.folder / "b" / "model.safetensors")]


def test_a_worker_waits_for_its_predecessor_on_a_node_that_is_cut_off(pool, tmp_path, monkeypatch):
    from mergeplan.merging import shards
    from mergeplan.system.files import is_held, lock

    def begin(checked, works, progress, watch):
        [one], [work] = checked.merges, works.values()
        write_plans(one, work.folder)
        name = one.prepared.files[0][0]
        held = lock(lock_of(work.folder, name).parent, "worker")
        assert is_held(lock_of(work.folder, name))
        slept = []

        def until_then(seconds):
            slept.append(seconds)
            if len(slept) == 3:
                held.close()

        monkeypatch.setattr(shards.time, "sleep", until_then)
        merge_shard(name, work.folder, 1, 1 << 28, run_of(work.folder))
        assert len(slept) == 3
        assert record_of(work.folder, name).hashes
        raise SurroundingsError("seen")

    with pytest.raises(SurroundingsError, match="seen"):
        merge_by(begin, pool, tmp_path / "out")


def _adapter(torch, folder, base, names):
    from safetensors.torch import save_file

    factors = {}
    for name in names:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.full((2, 24), 0.5)
        factors[f"{module}.lora_B.weight"] = torch.full((40, 2), 0.25)
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_shards_plan_lists_what_the_shard_reads_and_no_more(tmp_path):
    torch = pytest.importorskip("torch")
    names = [f"layers.{number}.q_proj.weight" for number in range(12)]
    for number, name in enumerate(("base", "a")):
        made = torch.Generator().manual_seed(number)
        tensors = {key: torch.randn((40, 24), generator=made).bfloat16() for key in names}
        (tmp_path / name).mkdir()
        torch.save(tensors, tmp_path / name / "pytorch_model.bin")
        (tmp_path / name / "config.json").write_text("{}")
    adapter = _adapter(torch, tmp_path / "b", tmp_path / "base", names[:7])
    options = {"weight": 1, "density": 0.5}
    config = parse_config(
        config_text(
            "dare_ties", [tmp_path / "a", adapter], base=tmp_path / "base", per_model=[options] * 2
        )
    )
    how = MergeOptions(max_shard_bytes=4 * 40 * 24 * 2 + 1, threads=1)
    merge_many([MergeRequest(config, tmp_path / "alone")], how)
    found, listed, made = {}, [], []

    def every_shard(checked, works, progress, watch):
        [one], [work] = checked.merges, works.values()
        write_plans(one, work.folder)
        for name, _, tensors in one.prepared.files:
            merge_shard(name, work.folder, 1, 1 << 28, run_of(work.folder))
            found.update(record_of(work.folder, name).hashes)
            plan = json.loads((lock_of(work.folder, name).parent / "plan.json").read_text())
            assert len(plan["models"]) == len(one.plan.data.models)
            listed.extend((set(m["tensors"]), set(tensors)) for m in plan["models"] if "path" in m)
            made.extend((set(m["derived"]), set(tensors)) for m in plan["models"] if "derived" in m)
        raise SurroundingsError("seen")

    with pytest.raises(SurroundingsError, match="seen"):
        merge_many([MergeRequest(config, tmp_path / "out")], how, runner=every_shard)
    assert found == load_manifest(tmp_path / "alone").tensors
    assert len(listed) == 2 * 3
    assert all(own == tensors for own, tensors in listed)
    assert made
    assert all(own <= tensors for own, tensors in made)


def test_a_model_with_scales_keeps_those_of_what_is_read():
    places = {
        name: ListedTensor("m.bin", "F8_E4M3", (4, 4), 0) for name in ("x", "x_scale", "y", "z")
    }
    kinds = (Scales((4, 4), "_scale", (1, 1), (4, 4)),)
    models = (Scaled(1, "bf16", kinds), Listed("m", places), "n")
    cut = cut_to(models, [(0, "x"), (0, "z"), (2, "y")])
    assert cut[::2] == models[::2]
    assert set(cut[1].tensors) == {"x", "x_scale", "z"}
