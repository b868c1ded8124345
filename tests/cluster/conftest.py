"""A real Ray cluster on this machine, started once."""

import warnings

import pytest


@pytest.fixture(scope="session")
def ray():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray and what it imports
        from mergeplan.cluster import connect

        ray = connect("local")
    yield ray
    ray.shutdown()
