"""Eight LoRA adapters on one base by TIES: mergeplan beside mergekit's own way, in one run.

    pytest tests/bench/bench_lora.py -s

The base has Qwen2.5-0.5B's shape; the adapters are peft's, rank 16 on all linear layers. Base and
adapters are made in the temporary folder (`MERGEPLAN_BENCH_DIR` names another place and keeps them,
`MERGEPLAN_BENCH_SHAPE=tiny` makes them small). mergekit merges each adapter into a model of its own
below `--lora-merge-cache`, and then those. Each program runs once, as a process; what is printed is
its time, its peak of anonymous memory, and what it leaves on the disk. `MERGEPLAN_BENCH_MERGEKIT=0`
leaves mergekit out.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mergeplan.bench.models import SHAPES, Shape, make_pool
from mergeplan.bench.processes import (
    Run,
    mergekit_command,
    mergeplan_command,
    read_all,
    run_process,
)
from tests.support.checkpoints import load_tensors

ADAPTERS = 8
RANK = 16
THREADS = 2
SHAPE = SHAPES[os.environ.get("MERGEPLAN_BENCH_SHAPE", "0.5b")]
pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with `base` and the adapters `l0`, `l1`, …."""
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    for name in make_pool(root, SHAPE, 0):
        print(f"making {name}")
    for number in range(ADAPTERS):
        if not (root / f"l{number}").exists():
            make_adapter(root / f"l{number}", root / "base", SHAPE, number)
    read_all(root / "base" / "model.safetensors")
    return root


def make_adapter(folder: Path, base: Path, shape: Shape, seed: int) -> None:
    """An adapter as peft saves it; its delta is about a twentieth of a weight."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors, targets = {}, set()
    for name, sides in shape.tensors().items():
        if "layers" not in name or len(sides) != 2:
            continue
        place = "base_model.model." + name.removesuffix(".weight")
        targets.add(place.rpartition(".")[2])
        rows, columns = sides
        a = torch.randn(RANK, columns, generator=generator) / columns**0.5
        b = torch.randn(rows, RANK, generator=generator) * 2e-3
        tensors[f"{place}.lora_A.weight"] = a.bfloat16()
        tensors[f"{place}.lora_B.weight"] = b.bfloat16()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": sorted(targets),
        "bias": "none",
    }
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))


def config_of(models: Path, folder: Path) -> Path:
    base = models / "base"
    names = [f"{base}+{models / f'l{number}'}" for number in range(ADAPTERS)]
    data = {
        "merge_method": "ties",
        "base_model": str(base),
        "models": [{"model": name} for name in names],
        "parameters": {"weight": 1.0, "density": 0.2},
    }
    path = folder / "c.yml"
    path.write_text(yaml.safe_dump(data))
    return path


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def tell(who: str, run: Run, written: int) -> None:
    anonymous, resident = run.anonymous_bytes or 0, run.resident_bytes or 0
    print(
        f"\n{who}: {run.seconds:.1f} s, anonymous {anonymous / 1e6:.0f} MB,"
        f" resident {resident / 1e6:.0f} MB, written {written / 1e6:.0f} MB"
    )


def test_eight_adapters(models, tmp_path):
    config = config_of(models, tmp_path)
    ours, theirs, cache = tmp_path / "ours", tmp_path / "theirs", tmp_path / "cache"
    runs = [run_process(mergeplan_command(config, tmp_path / "warm", THREADS))]
    runs += [run_process(mergeplan_command(config, ours, THREADS))]
    tell("mergeplan", min(runs, key=lambda run: run.seconds), bytes_in(ours))
    if os.environ.get("MERGEPLAN_BENCH_MERGEKIT") == "0":
        return
    command = [*mergekit_command(config, theirs, THREADS), "--lora-merge-cache", str(cache)]
    run = run_process(command)
    tell("mergekit", run, bytes_in(theirs) + bytes_in(cache))
    found, expected = load_tensors(ours), load_tensors(theirs)
    assert found.keys() == expected.keys()
    different = sum(int((found[name] != tensor).sum()) for name, tensor in expected.items())
    total = sum(tensor.numel() for tensor in expected.values())
    print(
        f"elements that differ: {different} of {total} ({different / total:.2%})", file=sys.stderr
    )
    assert different <= 0.1 * total
