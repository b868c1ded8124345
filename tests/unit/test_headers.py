"""Headers that were read while a merge was planned, and are not read again."""

import pickle

import pytest
import torch

from mergeplan._native import PreparedMerge
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.config.config import parse_config
from mergeplan.errors import MergeplanError
from mergeplan.planning.planner import build_plan
from tests.support.checkpoints import save_checkpoint

CONFIG = (
    "merge_method: linear\nmodels: [{{model: {0}/a}}, {{model: {0}/b}}]\nparameters: {{weight: 1}}"
)


@pytest.fixture
def plan(tmp_path):
    for name, shards in (("a", 1), ("b", 3)):
        tensors = {f"layers.{i}.weight": torch.full((2, 3), float(i)) for i in range(5)}
        save_checkpoint(tmp_path / name, tensors, shards=shards)
    return build_plan(parse_config(CONFIG.format(tmp_path)), seed=0, max_shard_bytes=10**9)


def test_the_core_opens_what_was_read_and_refuses_what_is_another_by_then(plan, tmp_path):
    assert len(plan.headers) == 2
    prepared = PreparedMerge(plan.json(), plan.headers)
    assert prepared.identities == PreparedMerge(plan.json()).identities
    shard = tmp_path / "b/model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes() + b"")
    with pytest.raises(MergeplanError, match=r"model-00002-of-00003\.safetensors` changed"):
        PreparedMerge(plan.json(), plan.headers)


def test_a_checkpoint_goes_to_another_process_without_them(tmp_path, plan):
    found = open_checkpoint(str(tmp_path / "b"))
    assert found.headers is not None
    sent = pickle.loads(pickle.dumps(found))
    assert sent.headers is None
    assert sent == found
