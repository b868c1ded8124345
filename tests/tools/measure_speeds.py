"""Measure the table in `mergeplan/inspection/speeds.py`: how fast each method goes over its inputs.

    python tests/tools/measure_speeds.py FOLDER

One base and four experts, bfloat16, in FOLDER (0.5 GB); processor seconds of a merge on one thread,
the least of three, less those of a dry run. Prints the table's rows.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from mergeplan.bench.models import Shape, make_pool
from mergeplan.config.config import load_config
from mergeplan.config.methods import METHODS, Method
from mergeplan.inspection.forecast import input_elements
from mergeplan.planning.planner import build_plan

SHAPE = Shape(896, 4864, 2, 20_000, 128, 14)
OPTIONS: dict[str, dict[str, Any]] = {
    "ties": {"density": 0.2},
    "dare_ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
    "breadcrumbs": {"density": 0.9, "gamma": 0.01},
    "breadcrumbs_ties": {"density": 0.9, "gamma": 0.01},
    "della": {"density": 0.5, "epsilon": 0.1},
    "della_linear": {"density": 0.5, "epsilon": 0.1},
    "slerp": {"t": 0.5},
    "nearswap": {"t": 0.001},
    "sce": {"select_topk": 0.3},
    "passthrough": {"scale": 0.9},
}
ROUNDS = 3


def config_of(method: Method, dtype: str) -> dict[str, Any]:
    parameters = dict(OPTIONS.get(method.name, {}))
    if "weight" in method.options:
        parameters["weight"] = 1.0
    inputs = [{"model": f"e{i}"} for i in range(min(4, method.max_inputs or 4))]
    config: dict[str, Any] = {"merge_method": method.name, "models": inputs, "dtype": dtype}
    if method.base == "required":
        config["base_model"] = "base"
    return {**config, "out_dtype": "bfloat16", "parameters": parameters}


def processor_seconds(*arguments: str) -> float:
    command = [sys.executable, "-m", "mergeplan", "merge", "c.yml", "out", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    return usage.ru_utime + usage.ru_stime


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for _ in make_pool(folder, SHAPE, 4):
        pass
    os.chdir(folder)
    for method in METHODS.values():
        rates = []
        for dtype in ("bfloat16", "float32"):
            Path("c.yml").write_text(yaml.safe_dump(config_of(method, dtype)))
            start = min(processor_seconds("--dry-run", "--overwrite") for _ in range(ROUNDS))
            run = ("--overwrite", "-j", "1", "--discard")
            seconds = min(processor_seconds(*run) for _ in range(ROUNDS)) - start
            plan = build_plan(load_config(Path("c.yml")), seed=0, max_shard_bytes=10**12)
            rates.append(input_elements(plan) / seconds / 1e6)
        print(f'    "{method.name}": ({rates[0]:.3g}, {rates[1]:.3g}),', flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
