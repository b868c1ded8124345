"""An adapter in a pool belongs to the pool's base, wherever one stands and whatever it names."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mergeplan.calibration.identity import models_of
from mergeplan.errors import InputError
from mergeplan.pool.bases import check_bases
from mergeplan.pool.geometry.compare import similarity
from mergeplan.pool.pool import load_pool
from tests.conformance.test_lora import KINDS, make_adapter, make_base
from tests.support.checkpoints import load_tensors
from tests.support.commands import cli


def name_base(adapter: Path, named: str | None) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": named}
    path.write_text(json.dumps(config))


@pytest.fixture
def pool(tmp_path) -> Path:
    """Two adapters, whose base is `base` beside them."""
    folder = tmp_path / "pool"
    base = make_base(folder / "base")
    for seed, name in enumerate("ab"):
        name_base(make_adapter(base, folder / name, seed, **KINDS["plain"]), "base")
    (folder / "pool.yml").write_text("sizes: [{base: base, experts: {a: a, b: b}}]")
    return folder / "pool.yml"


def test_a_pool_works_from_any_folder(pool, tmp_path, monkeypatch):
    """`base` in adapter_config.json holds only where one happens to stand."""
    elsewhere = tmp_path / "elsewhere"
    make_base(elsewhere / "base", hidden_size=32)
    (tmp_path / "nothing").mkdir()
    found = []
    for place in (pool.parent, elsewhere, tmp_path / "nothing"):
        monkeypatch.chdir(place)
        read = load_pool(pool)
        assert check_bases(read) == []
        (geometry,) = similarity(read)
        found.append((geometry.whole.gram.tolist(), models_of(read)))
        for command in ("similarity", "sample"):
            more = ["--out", str(tmp_path / f"out-{place.name}")] if command == "sample" else []
            run = cli(command, pool, *more)
            assert run.returncode == 0, run.stderr
            assert "warning" not in run.stderr
    assert found[0] == found[1] == found[2]
    files = {file.name for file in found[0][1]["expert `a`"]}
    assert files >= {"model.safetensors", "adapter_model.safetensors", "adapter_config.json"}


def test_a_base_that_is_not_here_is_said(pool):
    for named in ("meta-llama/Llama-0-0B", None, "/nowhere/base"):
        name_base(pool.parent / "a", named)
        (warning,) = check_bases(load_pool(pool))
        assert "it could not be compared with the pool's base" in warning
        assert named is None or f"`{named}`, which is not here" in warning
        run = cli("similarity", pool)
        assert run.returncode == 0, run.stderr
        assert "could not be compared" in run.stderr


def test_a_copy_of_the_base_is_the_base(pool, tmp_path):
    shutil.copytree(pool.parent / "base", tmp_path / "copy")
    name_base(pool.parent / "a", str(tmp_path / "copy"))
    assert check_bases(load_pool(pool)) == []


def test_a_base_in_another_dtype_is_said_and_another_model_refused(pool, tmp_path):
    from safetensors.torch import save_file

    base = pool.parent / "base"
    wide = shutil.copytree(base, tmp_path / "wide")
    tensors = load_tensors(base)
    save_file({n: t.float() for n, t in tensors.items()}, wide / "model.safetensors")
    name_base(pool.parent / "b", str(wide))
    (warning,) = check_bases(load_pool(pool))
    assert "could not be compared" in warning

    tuned = shutil.copytree(base, tmp_path / "tuned")
    moved = {n: t + 1 if t.dim() == 2 else t for n, t in tensors.items()}
    save_file(moved, tuned / "model.safetensors")
    larger = make_base(tmp_path / "larger", hidden_size=32)
    for other, words in ((tuned, "holds other values"), (larger, "has shape")):
        name_base(pool.parent / "b", str(other))
        with pytest.raises(InputError, match=words) as found:
            check_bases(load_pool(pool))
        assert f"`{other}`" in found.value.message
        assert str(base) in found.value.message
        assert "adapter_config.json" in (found.value.hint or "")
        for command in ("similarity", "sample"):
            more = ["--out", str(tmp_path / "out")] if command == "sample" else []
            assert cli(command, pool, *more).returncode == 1
    assert not (tmp_path / "out").exists()


def test_a_pools_experts_may_be_whole_models_too(pool):
    whole = make_base(pool.parent / "c")
    tensors = load_tensors(whole)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    pool.write_text("sizes: [{base: base, experts: {a: a, c: c}}]")
    (geometry,) = similarity(pool)
    assert geometry.whole.gram[1, 1] == 0  # it is the base's copy
    assert geometry.whole.gram[0, 0] > 0
