"""Pools that are merged and disturbed, made once."""

from pathlib import Path

import pytest
from runs import Undisturbed, make_pool, make_zeros

from helpers import config_text


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Undisturbed:
    """Four tensors of four blocks: a merge takes hundredths of a second."""
    folder = tmp_path_factory.mktemp("small")
    return Undisturbed(make_pool(folder / "pool", 4, (300, 700)), folder / "undisturbed")


@pytest.fixture(scope="session")
def large(full, tmp_path_factory) -> Undisturbed:
    """Six tensors that are cut into segments, 800 MB in all, and merges of 2 s or more.

    Only in the long run.
    """
    if not full:
        pytest.skip("part of the long run: MERGEPLAN_FULL=1")
    folder = tmp_path_factory.mktemp("large")
    times = {"linear": 8, "ties": 3, "model_stock": 3, "ties_float32": 2}
    pool = make_pool(folder / "pool", 6, (4096, 4100), **times)
    return Undisturbed(pool, folder / "undisturbed")


@pytest.fixture
def long_merge(tmp_path) -> Path:
    """A folder to merge in, a gigabyte in, long enough to be met at work."""
    make_zeros(tmp_path / "zeros", 1 << 26)
    text = config_text(
        "ties",
        [tmp_path / "zeros" / name for name in "abc"],
        base=tmp_path / "zeros" / "base",
        parameters={"weight": 1, "density": 0.5},
    )
    (tmp_path / "c.yml").write_text(text)
    return tmp_path
