"""Checkpoints in torch's own format: mapped where they lie, merged as their safetensors twins."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.errors import InputError
from tests.support.checkpoints import load_tensors, weights_of
from tests.support.merges import config_text, run_mergekit, run_mergeplan


def as_bin(folder: Path, out: Path, shards: int = 1) -> Path:
    """The same checkpoint in one `.bin`, or in shards with an index."""
    out.mkdir()
    tensors = load_tensors(folder)
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    if shards == 1:
        torch.save(tensors, out / "pytorch_model.bin")
        return out
    weight_map = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
        torch.save(part, out / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (out / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return out


@pytest.mark.parametrize("shards", [1, 3])
def test_it_merges_as_safetensors_do(shards, zoo, tmp_path):
    pool = zoo / "llama-16-bit"
    twins = {name: as_bin(pool / name, tmp_path / name, shards) for name in ("base", "a", "b")}
    for place, models in (("stored", {n: pool / n for n in twins}), ("bin", twins)):
        text = config_text(
            "task_arithmetic",
            [models["a"], models["b"]],
            base=models["base"],
            parameters={"weight": 0.6},
        )
        run_mergeplan(text, tmp_path / f"out-{place}")
    assert weights_of(tmp_path / "out-bin") == weights_of(tmp_path / "out-stored")
    run_mergekit(text, tmp_path / "theirs")
    found, expected = load_tensors(tmp_path / "out-bin"), load_tensors(tmp_path / "theirs")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_parts_of_one_storage_are_found(tmp_path):
    whole = torch.arange(24, dtype=torch.float32)
    (tmp_path / "m").mkdir()
    parts = {"a": whole[:8].view(2, 4), "b": whole[8:], "c": torch.tensor([True, False])}
    torch.save(parts, tmp_path / "m" / "pytorch_model.bin")
    run_mergeplan(config_text("passthrough", [tmp_path / "m"]), tmp_path / "out")
    found = load_tensors(tmp_path / "out")
    assert all(torch.equal(found[name], tensor) for name, tensor in parts.items())


class Loud:
    def __reduce__(self):
        return print, ("run",)


REFUSED = {
    "code": (lambda path: torch.save({"x": Loud()}, path), "cannot read"),
    "an old format": (
        lambda path: torch.save({"x": torch.ones(3)}, path, _use_new_zipfile_serialization=False),
        "before 1.6",
    ),
    "no tensor": (lambda path: torch.save({"x": 3}, path), "expected a tensor, found int"),
    "no names": (lambda path: torch.save([torch.ones(3)], path), "expected tensors by name"),
    "a view": (lambda path: torch.save({"x": torch.ones(3, 4).T}, path), "not in order"),
    "a dtype": (lambda path: torch.save({"x": torch.ones(3, dtype=torch.cfloat)}, path), "complex"),
    "no archive": (lambda path: path.write_bytes(b"nothing"), "cannot read"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"x": 1})), "cannot read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_mapped_is_named(case, tmp_path, capfd):
    save, words = REFUSED[case]
    save(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=words) as caught:
        open_checkpoint(str(tmp_path))
    assert str(tmp_path / "pytorch_model.bin") in caught.value.message
    assert "run" not in capfd.readouterr().out


def test_an_index_may_not_lead_elsewhere_and_shards_must_be_there(tmp_path):
    index = tmp_path / "pytorch_model.bin.index.json"
    (tmp_path / "pytorch_model-1.bin").touch()
    for text, words in (
        ('{"weight_map": {"x": "../other.bin"}}', "outside"),
        ('{"weight_map": {"x": "pytorch_model-2.bin"}}', "not there"),
        ("[]", "cannot read"),
    ):
        index.write_text(text)
        with pytest.raises(InputError, match=words):
            open_checkpoint(str(tmp_path))


def test_values_that_are_not_finite_are_located(tmp_path):
    (tmp_path / "m").mkdir()
    torch.save({"x": torch.tensor([1.0, float("nan")])}, tmp_path / "m" / "pytorch_model.bin")
    text = config_text("linear", [tmp_path / "m"], parameters={"weight": 0.5})
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*`x`"):
        run_mergeplan(text, tmp_path / "out")
