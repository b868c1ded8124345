"""A Ray cluster for the tests of this folder."""

import warnings

import pytest


@pytest.fixture(scope="module")
def ray():
    """A real Ray cluster on this machine, which does not outlive its tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray and what it imports
        from mergeplan.system.ray import connect

        cluster = connect("local")
    yield cluster
    cluster.shutdown()
