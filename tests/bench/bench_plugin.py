"""How much faster is mergekit's own run with mergeplan's kernels in it?

    pytest tests/bench/bench_plugin.py -s

Whole processes, the same flags, files in the page cache: `mergekit-yaml`, `mergeplan mergekit`, and
for scale `mergeplan merge`. Models of Qwen2.5-0.5B's shape and four experts are made once
(`MERGEPLAN_BENCH_DIR` and `MERGEPLAN_BENCH_SHAPE` as in `bench_merge`). Processor seconds are those
of all threads; they depend less on what else the machine does.
"""

import os
import resource
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mergeplan.bench.models import SHAPES, make_pool
from mergeplan.bench.processes import mergekit_command, mergeplan_command, read_all, run_process
from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from tests.support.merges import config_text

EXPERTS = 4
THREADS = 2
CASES = {
    "ties": {"density": 0.2},
    "dare_linear": {"density": 0.5},
    "task_arithmetic": {},
    "linear": {},
}
pytestmark = pytest.mark.timeout(0)


@dataclass(frozen=True)
class Cost:
    """What one process took; memory is the peak of what is its own (RssAnon)."""

    seconds: float
    processor_seconds: float
    anonymous_bytes: int


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    for name in make_pool(root, SHAPES[os.environ.get("MERGEPLAN_BENCH_SHAPE", "0.5b")], EXPERTS):
        print(f"making {name}")
    return root


def plugin_command(config: Path, out: Path) -> list[str]:
    """mergekit's command with `mergekit-yaml` replaced."""
    command = mergekit_command(config, out, THREADS)
    return [command[0], "-m", "mergeplan", "mergekit", *command[3:]]


def measured(command: Sequence[str], out: Path) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    before = _processor_seconds()
    run = run_process(command)
    return Cost(run.seconds, _processor_seconds() - before, run.anonymous_bytes or 0)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("method", CASES)
def test_plugin(pool, method, tmp_path):
    experts = [pool / f"e{number}" for number in range(EXPERTS)]
    text = config_text(
        method,
        experts,
        base=pool / "base",
        parameters={"weight": 1, "normalize": True, **CASES[method]},
    )
    config = tmp_path / "c.yml"
    config.write_text(text)
    for path in (pool / "base", *experts):
        read_all(path / WEIGHTS_FILE)
    ours, outs = {}, {name: tmp_path / name for name in ("plugin", "mergeplan", "mergekit")}
    ours["plugin"] = measured(plugin_command(config, outs["plugin"]), outs["plugin"])
    ours["mergeplan"] = measured(
        mergeplan_command(config, outs["mergeplan"], THREADS), outs["mergeplan"]
    )
    # The same bytes, masks among them.
    assert (outs["plugin"] / WEIGHTS_FILE).read_bytes() == (
        outs["mergeplan"] / WEIGHTS_FILE
    ).read_bytes()
    shutil.rmtree(outs["plugin"])
    shutil.rmtree(outs["mergeplan"])
    ours["mergekit"] = measured(
        mergekit_command(config, outs["mergekit"], THREADS), outs["mergekit"]
    )
    own = ours["mergekit"]
    print(f"\n{time.strftime('%H:%M')} {method}, k = {EXPERTS}, load {os.getloadavg()[0]:.1f}")
    for name, cost in ours.items():
        print(
            f"  {name:9} {cost.seconds:6.1f} s ({own.seconds / cost.seconds:4.1f} x),"
            f" processor {cost.processor_seconds:6.1f} s"
            f" ({own.processor_seconds / cost.processor_seconds:4.1f} x),"
            f" {cost.anonymous_bytes / 1e9:.2f} GB"
        )
    assert ours["plugin"].processor_seconds < own.processor_seconds
