"""Pools that are merged and disturbed, made once."""

import sys

import pytest
from runs import Undisturbed, make_pool

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc, mounts or signals")


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Undisturbed:
    """Four tensors of four blocks: a merge takes hundredths of a second."""
    folder = tmp_path_factory.mktemp("small")
    return Undisturbed(make_pool(folder / "pool", 4, (300, 700)), folder / "undisturbed")


@pytest.fixture(scope="session")
def large(full, tmp_path_factory) -> Undisturbed:
    """Six tensors that are cut into segments, 800 MB in all; only in the long run."""
    if not full:
        pytest.skip("part of the long run: MERGEPLAN_FULL=1")
    folder = tmp_path_factory.mktemp("large")
    return Undisturbed(make_pool(folder / "pool", 6, (4096, 4100)), folder / "undisturbed")
