"""The hash of what a tensor is merged from: every byte that is read counts, and no other."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mergeplan import MergeOptions
from mergeplan.merging.options import MergeRequest
from mergeplan.merging.turns import check_merges
from tests.support.checkpoints import save_checkpoint
from tests.support.fp8 import save_fp8
from tests.support.merges import config_text

LONG, PLAIN = "layers.0.q_proj.weight", "norm.weight"
# More than one block of 65,536 elements.
SHAPE = (300, 700)


def tensors(seed: int) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        LONG: torch.randn(SHAPE, generator=made).bfloat16(),
        PLAIN: torch.randn(9, generator=made).bfloat16(),
        "none": torch.zeros(0).bfloat16(),
    }


def opened(text: str, tmp_path: Path):
    request = MergeRequest(yaml.safe_load(text), tmp_path / "out")
    return check_merges([request], MergeOptions())[0].prepared


def stored(folder: Path, seed: int) -> Path:
    return save_checkpoint(folder, tensors(seed))


def float64(folder: Path, seed: int) -> Path:
    return save_checkpoint(folder, {name: one.double() for name, one in tensors(seed).items()})


def buffers(folder: Path, _: int) -> Path:
    long = torch.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    return save_checkpoint(folder, {LONG: long, PLAIN: torch.arange(9)})


def fp8(folder: Path, seed: int) -> Path:
    twin = folder.with_name(f"{folder.name}-twin")
    return save_fp8(folder, tensors(seed), {LONG: (128, 128)}, twin=twin)


def adapter(folder: Path, seed: int) -> Path:
    base = save_checkpoint(folder.with_name(f"{folder.name}-base"), tensors(seed))
    module = f"base_model.model.{LONG.removesuffix('.weight')}"
    factors = {
        f"{module}.lora_A.weight": torch.full((2, SHAPE[1]), 0.5),
        f"{module}.lora_B.weight": torch.full((SHAPE[0], 2), 0.25),
    }
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


KINDS = [
    ("linear", stored),
    ("ties", stored),
    ("slerp", stored),
    ("linear", float64),
    ("passthrough", buffers),
    ("task_arithmetic", fp8),
    ("linear", adapter),
]


@pytest.mark.parametrize(("method", "make"), KINDS, ids=lambda one: getattr(one, "__name__", one))
def test_every_byte_that_is_read_counts(method, make, tmp_path):
    models = [make(tmp_path / f"m{number}", number) for number in range(3)]
    base = models[0] if method in ("ties", "task_arithmetic", "slerp") else None
    used = models[1:2] if method in ("slerp", "passthrough") else models[1:]
    options = [{"weight": 0.5, "density": 0.5} for _ in used] if method == "ties" else None
    parameters = {"slerp": {"t": 0.5}, "passthrough": None}.get(method, {"weight": 0.5})
    text = config_text(
        method, used, base=base, per_model=options, parameters=None if options else parameters
    )

    names = [LONG, PLAIN]
    before = opened(text, tmp_path).input_hashes(names, 2)
    assert before == opened(text, tmp_path).input_hashes(names, 1)
    # The same as what a merge takes while it reads.
    (tmp_path / "work").mkdir()
    done = opened(text, tmp_path).run(
        tmp_path / "work", journal=tmp_path / "journal", threads=2, memory_bytes=1 << 30
    )
    assert {name: done["inputs"][name] for name in names} == before
    assert opened(text, tmp_path).recorded_inputs(tmp_path / "journal") == done["inputs"]

    files = [*tmp_path.glob("m*/*.safetensors")]
    read = set(used) | {base}
    for file in files:
        for name, places in places_of(file).items():
            module = name.removeprefix("base_model.model.")
            tensor = next((one for one in names if module.startswith(one[:-7])), None)
            is_read = any(
                file.parent == one or file.parent.name == f"{one.name}-base" for one in read if one
            )
            for place in places:
                flip(file, place)
                after = opened(text, tmp_path).input_hashes(names, 2)
                changed = {one for one in names if after[one] != before[one]}
                assert changed == ({tensor} if is_read and tensor else set()), (file, name, place)
                flip(file, place)


def places_of(file: Path) -> dict[str, list[int]]:
    """The first and the last byte of each tensor."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    places = {}
    for name, entry in header.items():
        begin, end = entry.get("data_offsets", (0, 0))
        places[name] = [8 + length + begin, 8 + length + end - 1] if end > begin else []
    return places


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_what_has_weight_zero_does_not_count(tmp_path):
    models = [stored(tmp_path / f"m{number}", number) for number in range(2)]
    text = config_text("linear", models, per_model=[{"weight": 1}, {"weight": 0}])

    def hashes():
        return opened(text, tmp_path).input_hashes([LONG], 1)

    before = hashes()
    flip(models[1] / "model.safetensors", places_of(models[1] / "model.safetensors")[LONG][0])
    assert hashes() == before
    flip(models[0] / "model.safetensors", places_of(models[0] / "model.safetensors")[LONG][0])
    assert hashes() != before
