"""The hub's client, where it is older than ours or something of ours is wrong."""

from types import SimpleNamespace

import pytest

from mergeplan.config.config import load_config
from mergeplan.errors import SurroundingsError
from mergeplan.hub import push as hub_push
from mergeplan.hub.client import telling
from mergeplan.hub.push import Push
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.turns import check_merges


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AttributeError("x")])
def test_a_fault_of_ours_is_not_told_as_the_hubs(error):
    with pytest.raises(type(error)), telling("push"):
        raise error
    with pytest.raises(SurroundingsError, match="cannot push: x"), telling("push"):
        raise ValueError("x")


def push(auth_check, config, monkeypatch):
    """Prepare one into a repository that holds something else."""
    there = SimpleNamespace(private=True, siblings=[SimpleNamespace(rfilename="x")], sha="0")
    client = SimpleNamespace(
        endpoint="http://hub", whoami=dict, model_info=lambda name: there, auth_check=auth_check
    )
    monkeypatch.setattr(hub_push, "open_hub", lambda *, quiet: client)
    request = MergeRequest(load_config(config), config.parent / "out")
    (merge,) = check_merges([request], MergeOptions())
    Push("org/name", licence="mit", quiet=True).prepare(merge)


def test_an_older_client_is_not_asked_for_the_right_to_write(config, monkeypatch):
    with pytest.raises(SurroundingsError, match="holds something else"):
        push(lambda name: pytest.fail("asked"), config, monkeypatch)


def test_a_fault_in_asking_for_that_right_is_not_hidden(config, monkeypatch):
    def auth_check(name, *, write=False):
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        push(auth_check, config, monkeypatch)
