"""One environment for all tests, set before torch is imported.

mergekit's bits depend on the vector unit and on the number of threads: agreement is defined against
AVX2 and one thread.
"""

import csv
import gc
import os
import signal
import sys
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# A shell starts background jobs with Ctrl-C ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.checkpoints import save_checkpoint
from tests.support.merges import config_text
from tests.support.runs import Undisturbed, make_pool, make_zeros
from tests.support.settings import DEMO_POOL, FULL

settings.register_profile("share", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("full" if FULL else "share")


def pytest_xdist_auto_num_workers(config):
    """One process where output is wanted as it comes (`-s`), as benchmarks do; else one a core."""
    return 0 if config.option.capture == "no" else None


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked `long`, but for the long run."""
    left_out = [item for item in items if item.get_closest_marker("long") and not FULL]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish():
    """What was imported by now stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the long suites run in full, or the share of them that CI runs."""
    return FULL


@pytest.fixture
def own_methods() -> Iterator[None]:
    """Merge methods that a test allows are forgotten behind it."""
    from mergeplan.config.methods import KNOWN
    from mergeplan.custom.declare import DECLARED
    from mergeplan.system.users_code import ALLOWED

    before = dict(KNOWN), dict(DECLARED)
    yield
    ALLOWED.clear()
    for known, kept in zip((KNOWN, DECLARED), before, strict=True):
        known.clear()
        known.update(kept)
    if "mergeplan.planning.mergekit.own_methods" in sys.modules:
        sys.modules["mergeplan.planning.mergekit.own_methods"].register_own()


@pytest.fixture(scope="session")
def demo_pool() -> Path:
    """A real pool: a byte-level base model and nine experts."""
    return DEMO_POOL


@pytest.fixture(scope="session")
def few_measured(tmp_path_factory) -> Path:
    """Of the real pool's measurements the base, single experts, pairs and all nine, to select from
    where it does not matter which: all 511 subsets take seven times as long."""
    path = tmp_path_factory.mktemp("few") / "measurements.csv"
    with (DEMO_POOL / "measurements.csv").open(newline="") as all_rows, path.open("w") as file:
        rows = csv.DictReader(all_rows)
        writer = csv.DictWriter(file, rows.fieldnames, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in rows if row["k"] in ("0", "1", "2", "9"))
    return path


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """Pools of tiny models of many architectures; see `tests/support/zoo.py`."""
    from tests.support.zoo import make_zoo

    return make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def small_models(tmp_path) -> Path:
    """A base and two experts of two tensors each, `base`, `a` and `b`, float32."""
    import torch

    generator = torch.Generator().manual_seed(0)
    base = {"x": torch.randn(8, 6, generator=generator), "y": torch.randn(5, generator=generator)}
    for name in ("base", "a", "b"):
        noise = 0.0 if name == "base" else 0.1
        tensors = {
            key: value + noise * torch.randn(value.shape, generator=generator)
            for key, value in base.items()
        }
        save_checkpoint(tmp_path / name, tensors)
    return tmp_path


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Undisturbed:
    """Four tensors of four blocks: a merge takes hundredths of a second."""
    folder = tmp_path_factory.mktemp("small")
    return Undisturbed(make_pool(folder / "pool", 4, (300, 700)), folder / "undisturbed")


@pytest.fixture(scope="session")
def large(tmp_path_factory) -> Undisturbed:
    """Six tensors that are cut into segments, 800 MB in all, and merges of 2 s or more.

    For tests marked `long`.
    """
    folder = tmp_path_factory.mktemp("large")
    times = {"linear": 20, "ties": 5, "dare_ties": 3, "model_stock": 6, "ties_float32": 3}
    pool = make_pool(folder / "pool", 6, (4096, 4100), **times)
    return Undisturbed(pool, folder / "undisturbed")


@pytest.fixture
def long_merge(tmp_path) -> Path:
    """A folder to merge in, 64 blocks of zeros, so that it is met at work."""
    make_zeros(tmp_path / "zeros", 1 << 22)
    text = config_text(
        "ties",
        [tmp_path / "zeros" / name for name in "abc"],
        base=tmp_path / "zeros" / "base",
        parameters={"weight": 1, "density": 0.5},
    )
    (tmp_path / "c.yml").write_text(text)
    return tmp_path


@pytest.fixture
def config(small_models) -> Path:
    """A TIES merge of `small_models`."""
    path = small_models / "c.yml"
    path.write_text(
        config_text(
            "ties",
            [small_models / "a", small_models / "b"],
            base=small_models / "base",
            parameters={"weight": 1, "density": 0.5},
        )
    )
    return path
