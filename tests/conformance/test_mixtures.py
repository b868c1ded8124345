"""Mixtures of experts, planned by names: nothing is lost, and packed tensors are merged whole."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM
from transformers.conversion_mapping import (
    _MODEL_TO_CONVERSION_PATTERN,
    _build_checkpoint_conversion_mapping,
    get_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import (
    ErnieFuseAndSplitTextVisionExperts,
    MergeModulelist,
    WeightConverter,
)

from mergeplan.errors import InputError
from mergeplan.inspection.verify import verify
from mergeplan.merging.streaming import merge_into, stream
from mergeplan.planning.packing import PACKINGS
from tests.conformance.test_mergekit_planner import family_of
from tests.support.checkpoints import load_tensors
from tests.support.merges import config_text, run_mergekit, run_mergeplan


def ties(base: Path, experts: list[Path], **top: object) -> str:
    parameters = {"weight": 0.5, "density": 0.6}
    return config_text("ties", experts, base=base, parameters=parameters, **top)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """The parameters of a checkpoint as transformers has them, experts packed."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return dict(model.state_dict())


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_whole_tensor_methods_see_the_packed_tensor_and_names_stay_the_donors(family, tmp_path):
    base, *experts = family_of(tmp_path, family)
    text = ties(base, experts)
    run_mergeplan(text, tmp_path / "ours")
    run_mergeplan(text, tmp_path / "packed", packed_experts=True)
    run_mergekit(text, tmp_path / "theirs")
    ours, theirs = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    assert set(ours) == set(load_tensors(base))
    assert {n: t.shape for n, t in ours.items()} == {
        n: t.shape for n, t in load_tensors(base).items()
    }
    packed = load_tensors(tmp_path / "packed")
    assert set(packed) == set(theirs)
    assert all(torch.equal(packed[name], tensor) for name, tensor in theirs.items())
    found, expected = loaded(tmp_path / "ours"), loaded(tmp_path / "theirs")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for name in ("ours", "packed"):
        assert verify(tmp_path / name).matches


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_names_stay_the_donors_where_mergekit_plans(family, tmp_path):
    base, *experts = family_of(tmp_path, family)
    parameters = {"weight": 0.5, "density": 0.6}
    models = [{"model": str(path), "parameters": parameters} for path in experts]
    config = {"base_model": str(base), "modules": {"default": {"models": models}}}
    text = yaml.safe_dump({"merge_method": "ties", **config})
    run_mergeplan(text, tmp_path / "ours")
    run_mergekit(text, tmp_path / "theirs")
    shapes = [{n: t.shape for n, t in load_tensors(f).items()} for f in (base, tmp_path / "ours")]
    assert shapes[0] == shapes[1]
    found, expected = loaded(tmp_path / "ours"), loaded(tmp_path / "theirs")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert verify(tmp_path / "ours").matches


def test_layers_that_mergekit_numbers_anew_and_computes_keep_their_names(tmp_path):
    path, *_ = family_of(tmp_path, "mixtral", 1)
    slices = [{"sources": [{"model": str(path), "layer_range": [first, 2]}]} for first in (1, 0)]
    config = {"modules": {"default": {"slices": slices}}, "dtype": "float64"}
    text = yaml.safe_dump({"merge_method": "passthrough", **config})
    report = run_mergeplan(text, tmp_path / "out")
    assert report.fallback_bytes
    before, after = load_tensors(path), load_tensors(tmp_path / "out")
    for name, tensor in after.items():
        source = re.sub(r"layers\.(\d)", lambda m: f"layers.{(1, 0, 1)[int(m[1])]}", name)
        assert torch.equal(tensor, before[source].double())
    assert "model.layers.2.block_sparse_moe.experts.2.w1.weight" in after
    assert verify(tmp_path / "out").matches


def test_shards_and_memory_have_the_same_as_one_file(tmp_path):
    base, *experts = family_of(tmp_path, "mixtral")
    text = ties(base, experts)
    run_mergeplan(text, tmp_path / "one")
    run_mergeplan(text, tmp_path / "many", max_shard_bytes=9000)
    one, many = load_tensors(tmp_path / "one"), load_tensors(tmp_path / "many")
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(one)
    assert len(set(index["weight_map"].values())) > 2
    assert verify(tmp_path / "many").matches
    streamed = dict(stream(_config(tmp_path, text)))
    for tensors in (many, streamed):
        assert set(tensors) == set(one)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in one.items())
    model = AutoModelForCausalLM.from_pretrained(base)
    merge_into(model, _config(tmp_path, text))
    expected = loaded(tmp_path / "one")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_mixture_merges_without_mergekit(tmp_path):
    base, *experts = family_of(tmp_path, "qwen3_moe")
    _config(tmp_path, ties(base, experts))
    blocked = (
        "import sys; sys.modules.update(dict.fromkeys(['mergekit', 'torch', 'transformers']));"
        "from mergeplan.__main__ import main; main()"
    )
    command = [sys.executable, "-c", blocked, "merge", tmp_path / "c.yml", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert set(load_tensors(tmp_path / "out")) == set(load_tensors(base))


def test_an_expert_that_the_files_lack_is_named(tmp_path):
    base, *experts = family_of(tmp_path, "mixtral")
    lost = "model.layers.1.block_sparse_moe.experts.1.w2.weight"
    for path in (base, *experts):
        tensors = load_tensors(path)
        del tensors[lost]
        _save(path, tensors)
    with pytest.raises(InputError, match=r"`model\.layers\.1\.mlp\.experts\.down_proj`: .* 2 matr"):
        run_mergeplan(ties(base, experts), tmp_path / "out")
    dtype = load_tensors(base)
    other = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    _save(base, {**dtype, lost: torch.ones(16, 24), other: dtype[other].half()})
    _save(experts[0], {**load_tensors(experts[0]), lost: torch.ones(16, 24)})
    with pytest.raises(InputError, match="they are merged as one tensor"):
        run_mergeplan(ties(base, experts[:1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# transformers has the conversions of some models by the class of their text part.
BY_CLASS = dict.fromkeys(("dots3_note", "dots3_note_text"), "Dots3NoteTextModel")
BY_CLASS |= dict.fromkeys(("unlimited_ocr", "unlimited_ocr_text"), "UnlimitedOcrTextModel")


def test_no_mixture_of_transformers_is_forgotten():
    types = {*_build_checkpoint_conversion_mapping(), *_MODEL_TO_CONVERSION_PATTERN}
    packed = set()
    for model_type in types:
        for step in get_checkpoint_conversion_mapping(model_type) or []:
            if isinstance(step, WeightConverter):
                names = {type(operation).__name__ for operation in step.operations}
                if names & {"MergeModulelist", "ErnieFuseAndSplitTextVisionExperts"}:
                    packed.add(model_type)
    assert packed - {*BY_CLASS.values()} == set(PACKINGS) - set(BY_CLASS)


def test_an_expert_of_another_width_is_named(tmp_path):
    base, *experts = family_of(tmp_path, "mixtral")
    names = [f"model.layers.0.block_sparse_moe.experts.1.{part}.weight" for part in ("w1", "w3")]
    for shape in ((9, 16), (5,)):
        for path in (base, *experts):
            _save(path, {**load_tensors(path), **{n: torch.ones(shape) for n in names}})
        with pytest.raises(InputError, match=r"experts\.1\.w1\.weight`: expected a matrix"):
            run_mergeplan(ties(base, experts), tmp_path / "out")


def test_the_table_of_packed_experts_is_that_of_transformers():
    for model_type, packing in PACKINGS.items():
        known = get_checkpoint_conversion_mapping(BY_CLASS.get(model_type, model_type))
        assert known, model_type
        name = f"model.layers.3.{packing.stem}.7"
        for packed, parts in packing.packed.items():
            for number, part in enumerate(parts):
                source = f"{name}.{part}.weight"
                renamed, pattern, converter = _converted(known, source)
                assert converter is not None, (model_type, source)
                # The packed name is loaded as that parameter, too.
                whole = f"model.layers.3.{(packing.kinds or (packing.new_stem,))[0]}.{packed}"
                assert renamed == _converted(known, whole)[0]
                assert converter.source_patterns.index(pattern) == number
                assert len(converter.source_patterns) == len(parts)
                assert len(converter.target_patterns) == max(1, len(packing.kinds))
                gathers = MergeModulelist, ErnieFuseAndSplitTextVisionExperts
                assert isinstance(converter.operations[0], gathers)


def _converted(known, name):
    for step in known:
        name, pattern = step.rename_source_key(name)
        if isinstance(step, WeightConverter) and pattern is not None:
            return name, pattern, step
    return name, None, None


def _config(folder: Path, text: str) -> Path:
    (folder / "c.yml").write_text(text)
    return folder / "c.yml"


def _save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
