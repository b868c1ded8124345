"""Pools at fault: one clear error before anything is measured, and nothing is written."""

import json
import os
from pathlib import Path

import pytest
import torch

from mergeplan.calibration.calibrate import calibrate
from mergeplan.calibration.options import CalibrateOptions
from mergeplan.errors import InputError, MissingInputError, SurroundingsError
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.pools import write_pool
from tests.support.settings import DEMO_POOL

HTML = str(DEMO_POOL / "html")


def with_experts(folder: Path, experts: dict[str, str]) -> Path:
    return write_pool(folder, sizes=[{"base": str(DEMO_POOL / "base"), "experts": experts}])


def with_changed_expert(folder: Path, change) -> Path:
    config = json.loads((DEMO_POOL / "html" / "config.json").read_text())
    save_checkpoint(folder / "changed", change(load_tensors(DEMO_POOL / "html")), config)
    return with_experts(folder, {"html": HTML, "changed": str(folder / "changed")})


def another_architecture(folder: Path) -> Path:
    return with_changed_expert(
        folder, lambda t: {name.replace("mlp", "feed_forward"): x for name, x in t.items()}
    )


def another_vocabulary(folder: Path) -> Path:
    name = "model.embed_tokens.weight"
    return with_changed_expert(folder, lambda t: t | {name: torch.cat([t[name], t[name][:8]])})


def with_text(folder: Path, text: str) -> Path:
    pool = write_pool(folder)
    (folder / "texts" / "html.jsonl").write_text(text)
    return pool


def one_expert(folder: Path) -> Path:
    return with_experts(folder, {"html": HTML})


def the_same_expert_twice(folder: Path) -> Path:
    return with_experts(folder, {"html": HTML, "again": HTML})


def duplicate_names(folder: Path) -> Path:
    pool = write_pool(folder)
    text = pool.read_text().replace('"js":', '"html":', 1)
    pool.write_text(text)
    return pool


POOLS = {
    "another architecture": (another_architecture, InputError, "feed_forward|mlp"),
    "another vocabulary": (another_vocabulary, InputError, "embed_tokens.weight"),
    "a missing expert": (
        lambda f: with_experts(f, {"html": HTML, "none": str(f / "none")}),
        MissingInputError,
        "none",
    ),
    "one expert": (one_expert, InputError, "expected two experts or more, found one"),
    "the same expert twice": (the_same_expert_twice, InputError, "are the same folder"),
    "duplicate names": (duplicate_names, InputError, "html"),
    "an empty text": (lambda f: with_text(f, "\n\n"), InputError, "html.jsonl"),
    "no JSON": (lambda f: with_text(f, "text: plain\n"), InputError, "line 1"),
    "a response without tokens": (
        lambda f: with_text(f, '{"prompt": "why?", "response": ""}\n'),
        InputError,
        "response",
    ),
    "no texts": (lambda f: write_pool(f, data={}), InputError, "no `data`"),
    "a missing text": (
        lambda f: write_pool(f, data={"html": "texts/none.jsonl"}),
        MissingInputError,
        "none.jsonl",
    ),
    "an unknown option": (
        lambda f: write_pool(f, methods={"ties": {"densty": 0.2}}),
        InputError,
        "densty",
    ),
}


@pytest.mark.parametrize("what", POOLS)
def test_a_pool_at_fault_is_refused_before_any_work(what, tmp_path, monkeypatch):
    make, error, message = POOLS[what]
    monkeypatch.setattr("mergeplan.calibration.worker.load_for_measure", _never)
    with pytest.raises(error, match=message):
        calibrate(make(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _never(*_, **__):
    raise AssertionError("a model was loaded")


def test_a_method_that_the_pool_lacks(tmp_path):
    pool = write_pool(tmp_path, methods={"ties": {}})
    with pytest.raises(InputError, match="no method `tise`") as caught:
        calibrate(pool, tmp_path / "run", CalibrateOptions(methods=("tise",)))
    assert caught.value.hint == "did you mean `ties`?"


def test_a_k_that_the_pool_lacks(tmp_path):
    with pytest.raises(InputError, match="k = 9: the pool has 5 experts"):
        calibrate(write_pool(tmp_path), tmp_path / "run", CalibrateOptions(ks=(1, 9)))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("mergeplan.calibration.worker.load_for_measure", _never)
    pool = write_pool(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SurroundingsError, match="cannot create"):
        calibrate(pool, tmp_path / "file" / "run")
    if os.path.exists("/proc/self"):  # noqa: PTH110
        with pytest.raises(SurroundingsError, match="cannot"):
            calibrate(pool, Path("/proc/self/run"))


def test_scores_that_were_damaged_are_named(tmp_path, monkeypatch):
    pool, run = write_pool(tmp_path), tmp_path / "run"
    calls = 0

    def stop(*_):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(pool, run, progress=stop)
    lines = (run / "scores.jsonl").read_text().splitlines()
    assert len(lines) == 3
    (run / "scores.jsonl").write_text("\n".join([lines[0], "{}", lines[2]]) + "\n")
    with pytest.raises(InputError, match="line 2: `merge` is missing"):
        calibrate(pool, run)


def test_a_loss_that_is_not_finite_ends_its_method_and_is_told(tmp_path):
    huge = {name: 1e30 * tensor for name, tensor in load_tensors(DEMO_POOL / "html").items()}
    config = json.loads((DEMO_POOL / "html" / "config.json").read_text())
    save_checkpoint(tmp_path / "huge", huge, config)
    pool = with_experts(tmp_path, {"huge": str(tmp_path / "huge"), "html": HTML})
    options = CalibrateOptions(methods=("dare",))
    done = calibrate(pool, tmp_path / "run", options)
    assert [reason for reason in done.reasons if "not finite" in reason]
    assert any("huge" in warning and "not finite" in warning for warning in done.warnings)
    assert "nan" not in (tmp_path / "run" / "measurements.csv").read_text().lower()
