"""The computed speed-ups of clusters are what can be said by hand."""

import math
from dataclasses import replace

import pytest

from tests.tools.cluster.simulate import Cluster, on_paper, simulated

IDEAL = Cluster(compute=10, card=math.inf, store=math.inf, begin=0, end=0, task=0)


@pytest.mark.parametrize("times", [on_paper, simulated])
@pytest.mark.parametrize(
    ("cluster", "nodes", "seconds"),
    [
        (IDEAL, 1, 80),
        (IDEAL, 4, 20),
        (IDEAL, 3, 30),  # eight shards in three turns
        (IDEAL, 64, 10),  # no node takes half a shard
        (replace(IDEAL, begin=2, end=3, task=0.5), 4, 26),
        (replace(IDEAL, card=5), 4, 40),
        (replace(IDEAL, store=20), 8, 40),  # all share it
    ],
)
def test_of_equal_shards(times, cluster, nodes, seconds):
    assert times(cluster, [100.0] * 8, nodes) == pytest.approx(seconds)


def test_a_large_shard_at_the_end_is_waited_for():
    shards = [100.0] * 7 + [300.0]
    assert simulated(IDEAL, shards, 4) == pytest.approx(40)
    assert simulated(IDEAL, shards[::-1], 4) == pytest.approx(30)


def test_what_no_task_uses_others_have():
    """Of a store for one node and a half, a lone last shard gets a node's whole rate."""
    assert simulated(replace(IDEAL, store=15), [100.0, 100.0, 100.0], 2) == pytest.approx(
        23 + 1 / 3
    )
