"""Nodes with a network of their own: what crosses it."""

import pytest

from tests.support.commands import cli
from tests.support.nodes import nodes, why_not
from tests.tools.cluster.models import write_merge
from tests.tools.cluster.traffic import crossed, merge_words, taken

pytestmark = pytest.mark.timeout(300)


def test_nothing_crosses_the_network_that_grows_with_the_model(tmp_path):
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    sent = []
    with nodes(2) as cluster:
        for tensors in (12, 480):
            config = write_merge(tmp_path / f"models{tensors:03}", tensors, 80)
            words = merge_words(config, 6, tensors, 80)
            assert cli(*words, cwd=tmp_path).returncode == 0
            alone = taken(tmp_path / "out")
            words += ["--ray", cluster.address]
            sent.append(crossed(cluster, cluster.nodes[1], 0, *words, cwd=tmp_path).sent)
            assert taken(tmp_path / "out") == alone
    # Some 100 kB each; a megabyte more when plans and results went through Ray.
    assert abs(sent[1] - sent[0]) < 150e3, sent
