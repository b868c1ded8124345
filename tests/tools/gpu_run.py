"""All that a machine with a GPU is to show, in at most eight minutes.

    python -m tests.tools.gpu_run            # from the repository's root; writes gpu_run.json
    python -m tests.tools.gpu_run --device cpu --shape small --no-tests         # what runs anywhere

It needs `pip install -e '.[test]'`. A base of Qwen2.5-0.5B's shape and four experts are made in a
temporary folder (`--dir` names another one and keeps them): 5 GB, and 1 GB for an output. In this
order, and each only if there is time:

1. the tests that use a device;
2. copies from pinned memory, to it and back, and the host's memcpy;
3. the kernel that draws masks, beside the plain form;
4. linear, TIES and DARE of four experts at limits of 0.5, 1, 4 and 16 GiB, and by the Rust core:
   the median of three merges in this process, without the final sync; files are in the page cache;
5. how often the host waited for the device in a merge, as torch counts it;
6. one, two and four workers at 0.5 and 1 GiB;
7. with `--mergekit`, mergekit with `--cuda`; last Qwen2.5-1.5B's shape.

*of the bus*: each input byte once up and each output byte once down, over the time of the merge,
over the lower of two rates, copies to the device and memcpy. The goal is 70 %. *read*: input bytes
read over those there are.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from mergeplan.bench.bench import write_case
from mergeplan.bench.models import SHAPES, Shape, make_pool
from mergeplan.bench.processes import mergekit_command, read_all, run_process
from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from mergeplan.errors import MergeplanError
from mergeplan.merging.merge import merge
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.torch import engine, philox, place
from mergeplan.merging.torch.device import find_devices
from tests.tools.gpu_rates import bus_rates, mask_rates, memcpy_rate

ALL_SHAPES = SHAPES | {"small": Shape(256, 1024, 2, 4000, 64, 4)}
METHODS = ("linear", "ties", "dare_linear")
EXPERTS, ROUNDS, GOAL = 4, 3, 0.7
THREADS = os.cpu_count() or 1
MIB = 1 << 20
TESTS = (
    "tests/unit/test_torch_arithmetic.py",
    "tests/unit/test_torch_philox.py",
    "tests/unit/test_torch_streaming.py",
    "tests/robustness/test_vram.py",
    "tests/robustness/test_devices.py",
    "tests/conformance/test_tensors.py",
)
# Seconds that a step is not begun without.
LEAST = {"tests": 60, "row": 15, "more": 30, "1.5b": 180}


class Run:
    """What was measured so far, and the time that is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._end = time.monotonic() + 60 * options.minutes
        self.is_gpu = options.device != "cpu"
        self.found: dict[str, Any] = {
            "facts": facts(options.device),
            "rows": [],
            "workers": [],
            "left_out": [],
        }

    def has(self, step: str, name: str = "") -> bool:
        """Whether there is time for a step; else it is noted."""
        if self.left > LEAST[step]:
            return True
        self.found["left_out"].append(name or step)
        return False

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def note(self, **found: Any) -> None:
        """Write down what there is: a run that is cut off leaves it."""
        self.found |= found
        self.options.json.write_text(json.dumps(self.found, indent=1) + "\n")


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Run all that there is time for, print a table, and return what it says."""
    options = parse(words)
    run = Run(options)
    if options.tests and run.has("tests"):
        run.note(tests=run_tests(run))
    if run.has("more", "all measures"):
        with tempfile.TemporaryDirectory() as folder:
            measure(run, options.dir or Path(folder), Path(folder))
    run.note(seconds_left=round(run.left))
    show(run.found)
    return run.found


def measure(run: Run, root: Path, work: Path) -> None:
    device, shape = run.options.device, run.options.shape
    pool = pool_of(root / shape, shape)
    rates = {**bus_rates(device), "memcpy": memcpy_rate(THREADS, device)}
    run.note(rates=rates, masks=mask_rates(device))
    merge(write_case(pool, work, "linear", "bfloat16", EXPERTS), work / "warm", by(run, None))
    shutil.rmtree(work / "warm")
    table(run, pool, work, shape)
    more(run, pool, work)
    if shape == "0.5b" and run.has("1.5b"):
        table(run, pool_of(root / "1.5b", "1.5b"), work, "1.5b")


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--shape", default="0.5b", choices=ALL_SHAPES)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--dir", type=Path, help="where models are made, and stay")
    parser.add_argument(
        "--json", type=Path, default=Path(os.environ.get("OUT", ".")) / "gpu_run.json"
    )
    parser.add_argument("--no-tests", dest="tests", action="store_false")
    parser.add_argument("--mergekit", action="store_true")
    options = parser.parse_args(words)
    try:
        devices = find_devices(options.device)
    except MergeplanError as error:
        sys.exit(f"--device: {error.message}")
    if not devices:
        sys.exit(f"--device: `{options.device}` finds no GPU: `--device cpu` runs anywhere")
    if len(devices) == 1:
        options.device = devices[0].name
    return options


def facts(device: str) -> dict[str, Any]:
    found = {"device": device, "torch": torch.__version__, "cores": THREADS}
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "vram_gib": round(properties.total_memory / 2**30, 1)}
        _, found["masks"] = philox.find_draw(torch.device(device))
    found["masks"] = found.get("masks") or "as they should be"
    return found


def run_tests(run: Run) -> dict[str, Any]:
    """Half of the time at the most."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "4", *TESTS]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=run.left / 2, check=False
        )
    except subprocess.TimeoutExpired:
        return {"last": "not done in half of the time", "failed": []}
    lines = done.stdout.splitlines()
    failed = [line for line in lines if re.match("FAILED|ERROR", line)]
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-2000:], flush=True)
    return {"last": (lines or [done.stderr[-200:]])[-1], "failed": failed}


def pool_of(root: Path, shape: str) -> Path:
    """Models in the page cache."""
    for name in make_pool(root, ALL_SHAPES[shape], EXPERTS):
        print(f"making {shape}/{name}", file=sys.stderr, flush=True)
    for path in sorted(root.glob(f"*/{WEIGHTS_FILE}")):
        read_all(path)
    return root


def by(run: Run, limit: int | None) -> MergeOptions:
    """On the device, or by the core."""
    if limit is None:
        return MergeOptions(threads=THREADS)
    # Buffers for the way up and down, which the memory limit bounds.
    return MergeOptions(
        device=run.options.device, vram_limit=limit, threads=THREADS, memory_limit=2 << 30
    )


def table(run: Run, pool: Path, work: Path, shape: str) -> None:
    limits = [512 * MIB, 1024 * MIB, 4096 * MIB, 16384 * MIB] if run.is_gpu else [64 * MIB]
    for method in METHODS:
        for limit in (None, *limits):
            if run.has("row", f"{shape} {method} {limit}"):
                run.found["rows"].append(row(run, pool, work, method, limit) | {"shape": shape})
                run.note()


def row(run: Run, pool: Path, work: Path, method: str, limit: int | None) -> dict[str, Any]:
    """One method at one limit; without one by the Rust core."""
    config = write_case(pool, work, method, "bfloat16", EXPERTS)
    names = [*(f"e{i}" for i in range(EXPERTS)), *(["base"] if method != "linear" else [])]
    inputs = sum((pool / name / WEIGHTS_FILE).stat().st_size for name in names)
    reports = []
    for _ in range(ROUNDS):
        reports.append(merge(config, work / "out", by(run, limit)))
        shutil.rmtree(work / "out")
    report = reports[-1]
    seconds = statistics.median(one.phases["merge"] for one in reports)
    rates = run.found["rates"]
    share = (inputs + report.written_bytes) / seconds / min(rates["up"], rates["memcpy"])
    return {
        "method": method,
        "limit_mib": limit and limit // MIB,
        "seconds": round(seconds, 4),
        "of_the_bus": round(share, 3),
        "read": round(report.read_bytes / inputs, 2),
        "peak_vram_mib": report.peak_vram_bytes // MIB,
        # A fault, but none to end a run for that may be the only one on this machine.
        "over_the_limit": limit is not None and report.peak_vram_bytes > limit,
        "by_device": round(report.device_bytes / report.written_bytes, 3),
        "warnings": list(report.warnings),
    }


def more(run: Run, pool: Path, work: Path) -> None:
    """Where the time goes, if there is some."""
    if run.is_gpu and run.has("more", "waits"):
        run.note(waits={method: waits(run, pool, work, method) for method in METHODS})
    counts = []
    known = place.workers_of
    for workers in (1, 2, 4) if run.is_gpu else ():
        for limit in (512 * MIB, 1024 * MIB):
            if run.has("more", f"{workers} workers"):
                engine.workers_of = lambda _device, count=workers: count
                found = [row(run, pool, work, method, limit) for method in METHODS]
                counts.extend(one | {"workers": workers} for one in found)
    engine.workers_of = known
    run.note(workers=counts)
    if run.options.mergekit and run.has("more", "mergekit"):
        config = write_case(pool, work, "ties", "bfloat16", EXPERTS)
        command = mergekit_command(config, work / "out", THREADS)
        done = run_process([*command, "--cuda"] if run.is_gpu else command)
        shutil.rmtree(work / "out")
        run.note(mergekit_ties_seconds=done.seconds)


def waits(run: Run, pool: Path, work: Path, method: str) -> int:
    """Calls for which torch made the host wait, in one merge of some 170 tensors."""
    config = write_case(pool, work, method, "bfloat16", EXPERTS)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            merge(config, work / "out", by(run, 4096 * MIB))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    shutil.rmtree(work / "out")
    return sum("synchronizing" in str(one.message) for one in seen)


def show(found: dict[str, Any]) -> None:
    rest = {key: value for key, value in found.items() if key not in ("rows", "workers")}
    print(json.dumps(rest, indent=1))
    titles = ("shape", "method", "limit", "seconds", "of the bus", "read", "VRAM")
    print("\n{:6} {:12} {:>10} {:>8} {:>10} {:>5} {}".format(*titles))
    for one in [*found["rows"], *found["workers"]]:
        limit = "Rust core" if one["limit_mib"] is None else f"{one['limit_mib']} MiB"
        notes = " *" if one["limit_mib"] is not None and one["of_the_bus"] >= GOAL else ""
        notes += f" ({one['workers']} workers)" if "workers" in one else ""
        notes += " OVER THE LIMIT" if one["over_the_limit"] else ""
        print(
            f"{one.get('shape', ''):6} {one['method']:12} {limit:>10} {one['seconds']:8.3f}"
            f" {one['of_the_bus']:10.0%} {one['read']:5.2f} {one['peak_vram_mib']} MiB{notes}"
        )
    print(f"* {GOAL:.0%} of the bus, the goal, is reached")
    for warning in sorted({text for one in found["rows"] for text in one["warnings"]}):
        print(f"warning: {warning}")


if __name__ == "__main__":
    measured = main()
    if any(one["over_the_limit"] for one in [*measured["rows"], *measured["workers"]]):
        sys.exit("a merge took more of the device's memory than its limit")
