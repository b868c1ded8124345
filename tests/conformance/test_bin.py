"""Checkpoints in torch's own format: mapped where they lie, merged as their safetensors twins."""

import json
import os
import pickle
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.checkpoints.pickles import read_file
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


# What torch writes of a model, and of what a trainer saves beside it.
STATE = {
    "a": torch.arange(11, dtype=torch.bfloat16) / 7,
    "b": torch.arange(12, dtype=torch.float32).view(3, 4),
    "p": torch.nn.Parameter(torch.ones(5)),
    "none": torch.zeros(0, 4),
    "one": torch.tensor(3),
}


def repacked(path: Path, out: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """The same archive as another program writes it."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", method) as new:
        for info in old.infolist():
            with new.open(info.filename, "w", force_zip64=info.filename.endswith("/1")) as entry:
                entry.write(old.read(info))
    return out


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_it_lies_where_the_archive_says(protocol, tmp_path):
    torch.save(STATE, tmp_path / "torch.bin", pickle_protocol=protocol)
    for path in (tmp_path / "torch.bin", repacked(tmp_path / "torch.bin", tmp_path / "zip.bin")):
        raw, found = path.read_bytes(), read_file(path)
        assert found.keys() == STATE.keys()
        for name, tensor in torch.load(path, weights_only=False).items():
            place = found[name]
            piece = bytearray(raw[place.offset or 0 :][: place.n_bytes])
            values = torch.frombuffer(piece, dtype=tensor.dtype) if piece else torch.zeros(0)
            assert place.shape == tuple(tensor.shape)
            assert torch.equal(values.to(tensor.dtype).view(tensor.shape), tensor.detach())


def test_a_repacked_checkpoint_merges_as_the_one_that_torch_wrote(tmp_path):
    (tmp_path / "m").mkdir()
    torch.save(STATE, tmp_path / "torch.bin")
    repacked(tmp_path / "torch.bin", tmp_path / "m" / "pytorch_model.bin")
    run_mergeplan(config_text("passthrough", [tmp_path / "m"]), tmp_path / "out")
    found = load_tensors(tmp_path / "out")
    assert all(torch.equal(found[name], tensor.detach()) for name, tensor in STATE.items())


def with_record(path: Path, name: str, content: bytes) -> None:
    """Replace one record of torch's archive."""
    with zipfile.ZipFile(path) as old:
        records = {info.filename: old.read(info) for info in old.infolist()}
    (full,) = (record for record in records if record.endswith(f"/{name}"))
    with zipfile.ZipFile(path, "w") as new:
        for record, old_content in records.items():
            new.writestr(record, content if record == full else old_content)


def deflated(path: Path) -> None:
    torch.save(STATE, path.with_name("torch.bin"))
    repacked(path.with_name("torch.bin"), path, zipfile.ZIP_DEFLATED)


def patched(path: Path, change: Callable[[bytearray], None]) -> None:
    torch.save(STATE, path)
    raw = bytearray(path.read_bytes())
    change(raw)
    path.write_bytes(raw)


def swap_names(raw: bytearray) -> None:
    """Two records of one name, as the directory has it."""
    place = raw.rindex(b"/data/1")
    raw[place : place + 7] = b"/data/0"


def encrypt(raw: bytearray) -> None:
    place = raw.index(b"PK\x01\x02", raw.rindex(b"data/0") - 80)
    raw[place + 8] |= 1


def move_into_another(raw: bytearray) -> None:
    """The directory says of `data/1` that it lies where `data/0` does."""
    entries = [raw.rindex(b"/data/" + key) for key in (b"0", b"1")]
    # 46 bytes, of which the last four are the place; the name begins with the folder.
    starts = [raw.rindex(b"PK\x01\x02", 0, entry) for entry in entries]
    raw[starts[1] + 42 : starts[1] + 46] = raw[starts[0] + 42 : starts[0] + 46]


def save_big_endian(path: Path) -> None:
    torch.save(STATE, path)
    with_record(path, "byteorder", b"big")


def save_short(path: Path) -> None:
    torch.save(STATE, path)
    with_record(path, "data/0", b"\0\0\0\0")


def with_pickle(content: bytes) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        torch.save(STATE, path)
        with_record(path, "data.pkl", content)

    return save


def save_quantised(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"x": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, path)


# A tuple that holds the one before it twice, sixty times over: its hash takes 2^60 steps.
BOMB = b"\x80\x02})" + b"q\0h\0\x86" * 60 + b"K\x01s."
STRANGE = {
    "big-endian": (save_big_endian, "byteorder.*expected little"),
    "compressed": (deflated, "expected it stored, found it compressed"),
    "twice in the directory": (lambda path: patched(path, swap_names), "found it twice"),
    "encrypted": (lambda path: patched(path, encrypt), "encrypted"),
    "one storage inside another": (lambda path: patched(path, move_into_another), "another's"),
    "a storage that is too short": (save_short, "expected 22 bytes in record"),
    "a cut file": (lambda path: patched(path, lambda raw: raw.pop()), "damaged"),
    "bytes before it": (lambda path: patched(path, lambda raw: raw.insert(0, 0)), "cannot read"),
    "a number as a key": (
        lambda path: torch.save({1: torch.ones(2), "1": torch.zeros(2)}, path),
        "a key of type int",
    ),
    "a name that is no text": (with_pickle(b"\x80\x02}X\x03\0\0\0\xed\xb2\x80Ns."), "no text"),
    "values to be negated": (
        lambda path: torch.save({"x": torch.ones(2, dtype=torch.cfloat).conj().imag}, path),
        "not in order",
    ),
    "a sparse tensor": (
        lambda path: torch.save({"x": torch.eye(2).to_sparse()}, path),
        "a sparse tensor",
    ),
    "a quantised tensor": (save_quantised, "a quantised tensor"),
    "a tensor without values": (
        lambda path: torch.save({"x": torch.ones(2, device="meta")}, path), "without values"
    ),
    "a tuple that is endless to hash": (with_pickle(BOMB), "a key of type tuple"),
    "an endless number": (with_pickle(b"\x80\x02\x8b\xff\xff\xff\x7f\1\1."), "cannot read"),
    "a memo of four billion places": (with_pickle(b"\x80\x02}r\xff\xff\xff\xff."), None),
    "an empty pickle": (with_pickle(b""), "cannot read"),
    "an empty stack": (with_pickle(b"\x80\x02."), "damaged"),
    "a mark that is passed": (with_pickle(b"\x80\x02}(\x85."), "damaged"),
    "a pipe": (lambda path: os.mkfifo(path), "expected a plain file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "expected a plain file"),
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGE)
def test_what_torch_does_not_write_is_named(case, tmp_path):
    save, words = STRANGE[case]
    path = tmp_path / "pytorch_model.bin"
    save(path)
    if words is None:
        assert read_file(path) == {}
        return
    with pytest.raises(InputError, match=words) as caught:
        open_checkpoint(str(path.parent))
    assert str(path) in caught.value.message


def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path):
    torch.save(STATE, tmp_path / "torch.bin")
    repacked(tmp_path / "torch.bin", tmp_path / "zip.bin")
    draw = random.Random(21)
    path, read = tmp_path / "changed.bin", 0
    for _ in range(400):
        raw = bytearray((tmp_path / draw.choice(("torch.bin", "zip.bin"))).read_bytes())
        for _ in range(draw.choice((1, 1, 2, 8))):
            place = draw.choice([draw.randrange(len(raw)), -draw.randrange(1, 1200)])
            raw[place] = draw.choice([draw.randrange(256), 0, 255, raw[place] ^ 1])
        path.write_bytes(raw)
        try:
            found = read_file(path)
        except InputError:
            continue
        read += 1
        assert all((t.offset or 0) + t.n_bytes <= len(raw) for t in found.values())
    assert 0 < read < 400
