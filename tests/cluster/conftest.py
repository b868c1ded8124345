"""One Ray cluster for all tests of this folder, in one worker."""

import warnings

import pytest


@pytest.fixture(scope="package")
def ray():
    """A real Ray cluster on this machine, which does not outlive its tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray and what it imports
        from mergeplan.system.ray import connect

        cluster = connect("local")
    yield cluster
    cluster.shutdown()
