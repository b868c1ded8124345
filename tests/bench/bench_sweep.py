"""All 511 subsets of nine experts: what merging costs beside evaluating, and beside mergekit.

    pytest tests/bench/bench_sweep.py -s

The bundled pool, its texts, one thread. The sweep merges into loaded models and scores them;
mergekit runs as `mergekit-yaml`, and each of its checkpoints is loaded and scored in this process,
for a few subsets from which the whole is extrapolated. Merging includes opening, planning and
thresholds.
"""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import Worker
from mergeplan.config.write import to_yaml
from mergeplan.evaluation.loading import load_model
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import subset_merge
from tests.support.settings import DEMO_POOL, EVAL

METHODS = {"average": {}, "ties": {"density": 0.2}, "dare": {"density": 0.8}}
MERGEKIT_RUNS = 3
pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    names = sorted(p.name for p in DEMO_POOL.iterdir() if p.is_dir() and p.name != "base")
    data = {
        "sizes": [
            {
                "base": str(DEMO_POOL / "base"),
                "experts": {name: str(DEMO_POOL / name) for name in names},
            }
        ],
        "data": {path.stem: str(path) for path in sorted(EVAL.glob("*.jsonl"))},
        "methods": METHODS,
    }
    path = tmp_path_factory.mktemp("sweep") / "pool.yml"
    path.write_text(json.dumps(data))
    return load_pool(path)


def all_subsets(pool, label):
    names = sorted(pool.sizes[0].experts)
    subsets = (s for k in range(1, len(names) + 1) for s in itertools.combinations(names, k))
    return [subset_merge(pool, 0, label, subset, seed=1) for subset in subsets]


@pytest.mark.parametrize("label", METHODS)
def test_sweep(label, pool, tmp_path):
    torch.set_num_threads(1)
    merges = all_subsets(pool, label)
    worker = Worker(pool, 0, Setup(dtype="float32", threads=1))
    begun = time.perf_counter()
    measured = list(worker.measure(merges, range(len(merges))))
    whole = time.perf_counter() - begun
    evaluating = sum(one.seconds[1] for one in measured)

    kit = 0.0
    for merge in merges[:: len(merges) // MERGEKIT_RUNS][:MERGEKIT_RUNS]:
        config, out = tmp_path / f"{merge.key}.yml", tmp_path / merge.key
        config.write_text(to_yaml(merge.config(pool)))
        begun = time.perf_counter()
        command = [Path(sys.executable).parent / "mergekit-yaml", config, out, "--quiet"]
        if not command[0].exists():
            command[:1] = [sys.executable, "-m", "mergekit.scripts.run_yaml"]
        subprocess.run(command, check=True, capture_output=True)
        scores = worker.texts.score(load_model(out, dtype="float32", device="cpu"))
        kit += time.perf_counter() - begun
        expected = next(one for one in measured if one.merge == merge).scores
        if label == "average":
            assert scores.macro().loss_nats == pytest.approx(expected.macro().loss_nats, abs=1e-4)
    kit *= len(merges) / MERGEKIT_RUNS
    print(
        f"\n{label}: {len(merges)} merges in {whole:.1f} s, evaluation alone {evaluating:.1f} s:"
        f" merging adds {100 * (whole / evaluating - 1):.1f} %; by mergekit about {kit:.0f} s,"
        f" {kit / whole:.0f} x"
    )
    assert whole < 1.15 * evaluating
