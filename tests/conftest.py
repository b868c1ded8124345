"""One environment for all tests, set before torch is imported.

mergekit's bits depend on the vector unit and on the number of threads: agreement is defined against
AVX2 and one thread.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest
from hypothesis import settings

from helpers import save_checkpoint

FULL = os.environ.get("MERGEPLAN_FULL") == "1"
settings.register_profile("share", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("full" if FULL else "share")

DEMO_POOL = Path(__file__).parent.parent / "python" / "mergeplan" / "demo_pool"


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the long suites run in full, or the share of them that CI runs."""
    return FULL


@pytest.fixture(scope="session")
def demo_pool() -> Path:
    """A real pool: a byte-level base model and nine experts."""
    return DEMO_POOL


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
