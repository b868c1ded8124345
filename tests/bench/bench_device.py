"""How near does a merge on a GPU come to what the bus and the host's memory allow?

    pytest tests/bench/bench_device.py -s

Models of Qwen2.5-1.5B's shape and eight experts are made in the temporary folder (28 GB, and 3 GB
for an output; `MERGEPLAN_BENCH_DIR` names another place and keeps them; with
`MERGEPLAN_BENCH_SHAPE=0.5b` they take a third). Files are in the page cache, arithmetic and files
are bfloat16. A row is the median of three runs in this process, by the time of the merge without
the final sync.

- *crossing*: each input byte once up, each output byte once down, over the time.
- *of the bus*: that, over the lower of two rates: pinned copies to the device, the host's memcpy.
- *read*: input bytes read, over those there are: 1 where all pieces stay on the device.

mergekit runs once for each method at k = 4, as a process, with `--cuda`, where it is installed.
Without a GPU torch's CPU device stands in, at limits that suit a CPU's caches.
"""

import os
import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mergeplan.bench.bench import write_case
from mergeplan.bench.models import SHAPES, make_pool
from mergeplan.bench.processes import mergekit_command, read_all, run_process
from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from mergeplan.merging.merge import merge
from mergeplan.merging.options import MergeOptions

GPU = torch.cuda.is_available()
DEVICE = "cuda:0" if GPU else "cpu"
SHAPE = os.environ.get("MERGEPLAN_BENCH_SHAPE", "1.5b" if GPU else "0.5b")
LIMITS = [1 << 29, 1 << 30, 1 << 32, 1 << 34] if GPU else [1 << 26, 1 << 27]
METHODS = ("linear", "ties", "dare_linear")
KS = (4, 8) if GPU else (4,)
ROUNDS = 3 if GPU else 1
THREADS = os.cpu_count() or 1
pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    for name in make_pool(root, SHAPES[SHAPE], max(KS)):
        print(f"making {name}", flush=True)
    for path in sorted(root.glob(f"*/{WEIGHTS_FILE}")):
        read_all(path)
    return root


@pytest.fixture(scope="module")
def floor() -> float:
    """Bytes per second that no merge can exceed."""
    bus, memory = bus_rate(), memcpy_rate()
    name = torch.cuda.get_device_name() if GPU else "torch's CPU device"
    print(f"\n{name}: pinned copies to it {bus / 1e9:.1f} GB/s", end="")
    print(f", memcpy with {THREADS} threads {memory / 1e9:.1f} GB/s")
    return min(bus, memory)


def bus_rate() -> float:
    """Of copies from pinned memory to the device, in bytes per second."""
    buffer = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=GPU)
    there = torch.empty_like(buffer, device=DEVICE)

    def copy() -> None:
        there.copy_(buffer, non_blocking=True)
        if GPU:
            torch.cuda.synchronize()

    copy()
    return buffer.numel() / min(timed(copy) for _ in range(5))


def memcpy_rate() -> float:
    """Of a copy in the host's memory by all threads, in bytes per second."""
    source, target = (np.ones(256 << 20, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(target, THREADS), np.array_split(source, THREADS), strict=True))
    with ThreadPoolExecutor(THREADS) as threads:

        def copy() -> None:
            list(threads.map(lambda part: np.copyto(*part), parts))

        copy()
        return source.size / min(timed(copy) for _ in range(5))


def timed(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def test_merges_on_the_device(pool, floor, tmp_path):
    merge(write_case(pool, tmp_path, "linear", "bfloat16", 1), tmp_path / "warm", options(None))
    shutil.rmtree(tmp_path / "warm")
    print("method       k  limit      seconds  inputs   crossing  of the bus  read  peak VRAM")
    for method in METHODS:
        for k in KS:
            for limit in LIMITS:
                row(pool, tmp_path, floor, method, k, limit)
            row(pool, tmp_path, floor, method, k, None)


def options(limit: int | None) -> MergeOptions:
    if limit is None:
        return MergeOptions(threads=THREADS)
    # Buffers for the way up and down, which `--memory-limit` bounds.
    return MergeOptions(device=DEVICE, vram_limit=limit, threads=THREADS, memory_limit=2 << 30)


def row(pool: Path, work: Path, floor: float, method: str, k: int, limit: int | None) -> None:
    """Measure and print; without a limit it is the Rust core that merges."""
    if limit is not None and GPU and limit > torch.cuda.mem_get_info()[0]:
        return
    config = write_case(pool, work, method, "bfloat16", k)
    names = [*(f"e{i}" for i in range(k)), *(["base"] if method != "linear" else [])]
    inputs = sum((pool / name / WEIGHTS_FILE).stat().st_size for name in names)
    reports = []
    for _ in range(ROUNDS):
        reports.append(merge(config, work / "out", options(limit)))
        shutil.rmtree(work / "out")
    report = sorted(reports, key=lambda one: one.phases["merge"])[ROUNDS // 2]
    seconds = statistics.median(one.phases["merge"] for one in reports)
    crossing = (inputs + report.written_bytes) / seconds
    what = f"{limit >> 20:5} MiB" if limit is not None else "Rust core"
    print(
        f"{method:<12} {k}  {what:<9} {seconds:8.2f} {inputs / seconds / 1e9:6.1f} GB/s"
        f" {crossing / 1e9:6.1f} GB/s {crossing / floor:9.0%} {report.read_bytes / inputs:7.2f}"
        f" {report.peak_vram_bytes >> 20:6} MiB",
        flush=True,
    )
    if limit is not None:
        assert report.device_bytes > 0.9 * report.written_bytes
        assert report.peak_vram_bytes <= limit


@pytest.mark.skipif(find_spec("mergekit") is None, reason="mergekit is not installed")
def test_mergekit_beside_it(pool, tmp_path):
    for method in METHODS:
        config = write_case(pool, tmp_path, method, "bfloat16", 4)
        command = mergekit_command(config, tmp_path / "out", THREADS)
        run = run_process([*command, "--cuda"] if GPU else command)
        shutil.rmtree(tmp_path / "out")
        print(f"mergekit{' --cuda' if GPU else ''}, {method}, k = 4: {run.seconds:.1f} s, whole")
