"""How fast is a merge, beside a plain copy of the same bytes?

    pytest tests/bench/bench_merge.py --benchmark-columns=min,median -s

Models of Qwen2.5-0.5B's shape and four experts are made once in the temporary folder (6 GB;
`MERGEPLAN_BENCH_DIR` names another place and keeps them, `MERGEPLAN_BENCH_SHAPE=tiny` makes them
small). The ratio to the copy stands in `extra_info`. The whole table, with mergekit, memory and
more methods, is `mergeplan bench`.
"""

import os
import shutil
from pathlib import Path

import pytest

from mergeplan.bench.bench import CASES, DTYPES, write_case
from mergeplan.bench.models import SHAPES, make_pool
from mergeplan.bench.processes import copy_floor, mergeplan_command, read_all, run_process
from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from mergeplan.config.methods import METHODS

EXPERTS = 4
THREADS = 2
pytestmark = pytest.mark.timeout(0)
FLOOR: list[float] = []


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    shape = SHAPES[os.environ.get("MERGEPLAN_BENCH_SHAPE", "0.5b")]
    for name in make_pool(root, shape, EXPERTS):
        print(f"making {name}")
    for path in inputs(root):
        read_all(path)
    return root


def inputs(root: Path) -> list[Path]:
    return [root / name / WEIGHTS_FILE for name in ("base", *(f"e{i}" for i in range(EXPERTS)))]


def test_plain_copy(benchmark, pool, tmp_path):
    args = (inputs(pool), tmp_path / "copy", THREADS)
    benchmark.pedantic(copy_floor, args=args, rounds=3, warmup_rounds=1)
    FLOOR.append(benchmark.stats.stats.median)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", [name for name in CASES if name in METHODS])
def test_mergeplan(benchmark, pool, method, dtype, tmp_path):
    out = tmp_path / "out"
    config = write_case(pool, tmp_path, method, dtype, EXPERTS)
    benchmark.pedantic(
        run_process,
        args=(mergeplan_command(config, out, THREADS),),
        setup=lambda: shutil.rmtree(out, ignore_errors=True),
        rounds=3,
        warmup_rounds=1,
    )
    if FLOOR:
        benchmark.extra_info["times_copy"] = benchmark.stats.stats.median / FLOOR[0]
    assert (out / WEIGHTS_FILE).stat().st_size > 0.99 * (
        pool / "base" / WEIGHTS_FILE
    ).stat().st_size
