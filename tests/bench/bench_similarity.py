"""`mergeplan similarity` on eight experts of Qwen2.5-0.5B's shape, beside a read of their files.

    pytest tests/bench/bench_similarity.py -s

The models are made in the temporary folder (`MERGEPLAN_BENCH_DIR` names another place and keeps
them, `MERGEPLAN_BENCH_SHAPE=tiny` makes them small) and read once before. Both run in this process
on two threads, in turns; what is printed is the median of each, and their ratio.
"""

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mergeplan.bench.models import SHAPES, make_pool
from mergeplan.pool.geometry.compare import geometry_of
from mergeplan.pool.pool import PoolSize

EXPERTS = 8
THREADS = 2
ROUNDS = 5
PIECE = 1 << 22
SHAPE = SHAPES[os.environ.get("MERGEPLAN_BENCH_SHAPE", "0.5b")]
pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def size(tmp_path_factory) -> PoolSize:
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    for name in make_pool(root, SHAPE, EXPERTS):
        print(f"making {name}")
    return PoolSize(root / "base", {f"e{i}": root / f"e{i}" for i in range(EXPERTS)})


def read(path: Path) -> int:
    """Every byte once, into one small buffer."""
    total, buffer = 0, bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def test_eight_experts(size):
    files = [folder / "model.safetensors" for folder in (size.base, *size.experts.values())]
    seconds: dict[str, list[float]] = {"read": [], "similarity": []}
    for number in range(ROUNDS + 1):
        begun = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            n_bytes = sum(pool.map(read, files))
        between = time.perf_counter()
        found = geometry_of(size, threads=THREADS)
        ended = time.perf_counter()
        if number:  # the first round fills the page cache
            seconds["read"].append(between - begun)
            seconds["similarity"].append(ended - between)
    floor, ours = (statistics.median(each) for each in seconds.values())
    print(
        f"\n{n_bytes / 1e9:.2f} GB: read {floor:.2f} s, similarity {ours:.2f} s,"
        f" {ours / floor:.2f} × the read"
    )
    assert found.read_bytes <= n_bytes
