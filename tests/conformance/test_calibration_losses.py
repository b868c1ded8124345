"""What calibration measures is what written merges have, mergekit's too, by a plain loop."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import Worker
from mergeplan.config.write import to_yaml
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import subset_merge
from tests.support.merges import run_mergekit, run_mergeplan
from tests.support.settings import EVAL
from tests.support.shares import paired, spread

METHODS = {
    "average": {},
    "task_arithmetic": {"lambda": 0.8},
    "ties": {"density": 1.0, "lambda": 0.5},
    "ties_strong": {"method": "ties", "density": 0.2, "lambda": 1.0},
    "dare": {"density": 0.8},
    "breadcrumbs": {"density": 0.8, "gamma": 0.02, "lambda": 0.7},
}
TOLERANCE = 1e-4
# Deltas of bfloat16 weights tie at the threshold by the dozen, and mergekit's sort, which is not
# stable, keeps others of them than we do.
TIED, TIED_TOLERANCE = ("ties_strong", "breadcrumbs"), 1e-2


def plain_loop(folder: Path, texts: dict[str, Path]) -> dict[str, float]:
    """Losses of a checkpoint, text by text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = {}
    for domain, path in texts.items():
        nll, count = 0.0, 0
        for line in path.read_text("utf-8").splitlines():
            ids = torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, :-1].double()
            nll -= torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
        losses[domain] = nll / count
    return losses


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Path]:
    """The first lines of each domain."""
    folder = tmp_path_factory.mktemp("texts")
    for path in sorted(EVAL.glob("*.jsonl"))[:3]:
        lines = path.read_text("utf-8").splitlines()[:6]
        (folder / path.name).write_text("\n".join(lines))
    return {path.stem: path for path in sorted(folder.glob("*.jsonl"))}


@pytest.fixture(scope="module")
def mixed_pool(demo_pool, tmp_path_factory) -> Path:
    """The demo's pool in bfloat16, but for one expert that stays float32."""
    folder = tmp_path_factory.mktemp("mixed")
    for source in sorted(path for path in demo_pool.iterdir() if path.is_dir()):
        target = folder / source.name
        shutil.copytree(source, target)
        if source.name != "perl":
            tensors = load_file(target / "model.safetensors")
            halved = {name: tensor.bfloat16() for name, tensor in tensors.items()}
            save_file(halved, target / "model.safetensors", metadata={"format": "pt"})
    return folder


def pool_of(folder: Path, texts: dict[str, Path], to: Path):
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "base")
    data = {
        "sizes": [
            {
                "base": str(folder / "base"),
                "experts": {name: str(folder / name) for name in names},
            }
        ],
        "data": {domain: str(path) for domain, path in texts.items()},
        "methods": METHODS,
    }
    (to / "pool.yml").write_text(json.dumps(data))
    return load_pool(to / "pool.yml")


@pytest.mark.parametrize(("label", "kind"), paired(spread(list(METHODS), 3), ["mixed", "float32"]))
def test_losses_are_those_of_written_merges(
    kind, label, demo_pool, mixed_pool, texts, tmp_path, full
):
    folder = mixed_pool if kind == "mixed" else demo_pool
    pool = pool_of(folder, texts, tmp_path)
    names = sorted(pool.sizes[0].experts)
    rng = random.Random(label)
    subsets = [("perl",), tuple(names)]
    subsets += [tuple(sorted(rng.sample(names, k))) for k in ((2, 4, 6, 3) if full else (3,))]
    merges = [subset_merge(pool, 0, label, subset, seed=5) for subset in subsets]
    worker = Worker(pool, 0, Setup(EvaluationOptions(), dtype="float32", threads=1))
    for measured in worker.measure(merges, range(len(merges))):
        merge = measured.merge
        text = to_yaml(merge.config(pool))
        out = tmp_path / merge.key
        run_mergeplan(text, out, seed=merge.seed)
        found = {name: one.loss_nats for name, one in measured.scores.estimates().items()}
        expected = plain_loop(out, texts)
        assert found == pytest.approx(expected, abs=TOLERANCE)
        mean = sum(expected.values()) / len(expected)
        assert measured.scores.macro().loss_nats == pytest.approx(mean, abs=TOLERANCE)
        if label == "dare":  # mergekit's masks are its own
            continue
        run_mergekit(text, tmp_path / f"{merge.key}-mergekit")
        tied = kind == "mixed" and label in TIED
        expected = plain_loop(tmp_path / f"{merge.key}-mergekit", texts)
        assert found == pytest.approx(expected, abs=TIED_TOLERANCE if tied else TOLERANCE)
