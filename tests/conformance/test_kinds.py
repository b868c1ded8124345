"""Models that are no folder of a language model: single files, other libraries' (issue 20, 14)."""

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.errors import InputError, MissingInputError
from mergeplan.inspection.diff import diff
from mergeplan.inspection.verify import verify
from tests.support.checkpoints import load_tensors, save_checkpoint, weights_of
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan

SHAPES = {"conv.weight": (4, 3, 2, 2), "conv.bias": (4,), "n": ()}
DIFFUSERS = "diffusion_pytorch_model"


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def mean(out: Path, models: list[Path], **options) -> dict[str, torch.Tensor]:
    run_mergeplan(config_text("linear", models, parameters={"weight": 1}), out, **options)
    return load_tensors(out)


def assert_mean(found: dict[str, torch.Tensor]) -> None:
    one, two = tensors_of(1), tensors_of(2)
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, (one[name] + two[name]) / 2, atol=1e-6)


SAVED = {
    "a.safetensors": lambda tensors, path: save_file(tensors, path),
    "a.bin": lambda tensors, path: torch.save(tensors, path),
    "a.pt": lambda tensors, path: torch.save(
        {"epoch": 3, "state_dict": OrderedDict(tensors), "optimizer": {"state": {}}}, path
    ),
    "a.pth": lambda tensors, path: torch.save(
        {"model": tensors, "rng": torch.ones(3, dtype=torch.uint8)}, path
    ),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_single_file_is_a_model(name, tmp_path):
    paths = [tmp_path / f"{number}-{name}" for number in (1, 2)]
    for number, path in enumerate(paths, 1):
        SAVED[name](tensors_of(number), path)
    (tmp_path / "c.yml").write_text(config_text("linear", paths, parameters={"weight": 1}))
    # The output may lie beside the files: they share a folder with others.
    run = cli("merge", tmp_path / "c.yml", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert f"`{paths[0]}` has no config.json" in run.stderr
    assert list(weights_of(tmp_path / "out")) == ["model.safetensors"]
    assert_mean(load_tensors(tmp_path / "out"))
    assert verify(tmp_path / "out", inputs=True).matches
    assert cli("inspect", paths[0], tmp_path / "c.yml").returncode == 0
    assert not diff(paths[0], paths[0]).differing
    run = cli("merge", tmp_path / "c.yml", tmp_path, "--overwrite")
    assert (run.returncode, "holds input" in run.stderr) == (1, True)


def test_a_config_beside_a_single_file_is_the_outputs(tmp_path):
    for number in (1, 2):
        save_checkpoint(tmp_path / f"{number}", tensors_of(number), {"model_type": "x"})
    files = [tmp_path / f"{number}" / "model.safetensors" for number in (1, 2)]
    assert_mean(mean(tmp_path / "out", files))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "x"
    with pytest.raises(InputError, match="are the same"):
        mean(tmp_path / "again", [files[0], tmp_path / "1"])


def test_a_link_to_a_file_elsewhere_keeps_what_lies_beside_the_link(tmp_path):
    """As in the hub's cache, whose files are links to blobs."""
    (tmp_path / "blobs").mkdir()
    for number in (1, 2):
        folder = save_checkpoint(tmp_path / f"{number}", tensors_of(number), {"model_type": "x"})
        blob = (folder / "model.safetensors").rename(tmp_path / "blobs" / f"{number}")
        (folder / "model.safetensors").symlink_to(blob)
    files = [tmp_path / f"{number}" / "model.safetensors" for number in (1, 2)]
    assert_mean(mean(tmp_path / "out", files))
    assert (tmp_path / "out" / "config.json").is_file()


def test_what_a_file_is_not_is_said(tmp_path):
    kinds = {"m.gguf": "llama.cpp's format", "c.json": "a JSON file, and no model"}
    kinds |= {"t.csv": "a table, and no model", "README": "a text file, and no model"}
    kinds |= {"c.yml": "a YAML file, and no model", "m.dat": "a file of an unknown kind"}
    for name, words in kinds.items():
        (tmp_path / name).write_bytes(b"\0" if name == "m.dat" else b"words")
        with pytest.raises(InputError, match=words):
            open_checkpoint(str(tmp_path / name))
    torch.save({"model": tensors_of(1), "state_dict": tensors_of(2)}, tmp_path / "two.pt")
    with pytest.raises(InputError, match="under `state_dict` and under `model`"):
        open_checkpoint(str(tmp_path / "two.pt"))
    torch.save({"epoch": 3, **tensors_of(1)}, tmp_path / "flat.pt")
    with pytest.raises(InputError, match="`epoch`: expected a tensor, found int"):
        open_checkpoint(str(tmp_path / "flat.pt"))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(InputError, match="found torch.nn.modules.linear.Linear"):
        open_checkpoint(str(tmp_path / "module.pt"))
    save_file(tensors_of(1), tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(InputError, match="one of 2 shards"):
        open_checkpoint(str(tmp_path / "model-00001-of-00002.safetensors"))


def test_a_model_of_another_library_merges_by_names(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=4,
        patch_size=2,
    )
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(ViTForImageClassification(config))
        models[-1].save_pretrained(tmp_path / f"{seed}")
        (tmp_path / f"{seed}" / "preprocessor_config.json").write_text("{}")
    mean(tmp_path / "out", [tmp_path / "1", tmp_path / "2"])
    loaded, found = ViTForImageClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(found.values())
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    one, two = (model.state_dict() for model in models)
    for name, tensor in loaded.state_dict().items():
        assert torch.allclose(tensor, (one[name] + two[name]) / 2, atol=1e-6), name


def component(folder: Path, seed: int, shards: int = 1) -> Path:
    """A diffusers component: its config has a class, and its files a name of their own."""
    config = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.35.0"}
    save_checkpoint(folder, tensors_of(seed), config, shards)
    for path in list(folder.glob("model*")):
        path.rename(folder / path.name.replace("model", DIFFUSERS, 1))
    index = folder / f"{DIFFUSERS}.safetensors.index.json"
    if shards > 1:
        index.write_text(index.read_text().replace('"model-', f'"{DIFFUSERS}-'))
    return folder


@pytest.mark.parametrize("shards", [1, 2])
def test_a_diffusers_component_keeps_the_names_that_its_loader_expects(shards, tmp_path):
    models = [component(tmp_path / f"{seed}" / "unet", seed, shards) for seed in (1, 2)]
    found = mean(tmp_path / "out", models, max_shard_bytes=1 if shards > 1 else 10**9)
    assert_mean(found)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    if shards == 1:
        assert f"{DIFFUSERS}.safetensors" in names
    else:
        index = json.loads((tmp_path / "out" / f"{DIFFUSERS}.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == set(weights_of(tmp_path / "out"))
    assert not any(name.startswith("model") for name in names)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == json.loads((models[0] / "config.json").read_text())
    assert verify(tmp_path / "out").matches
    if shards > 1:
        (tmp_path / "out" / f"{DIFFUSERS}.safetensors.index.json").unlink()
        assert [d.file for d in verify(tmp_path / "out").differences] == [
            f"{DIFFUSERS}.safetensors.index.json"
        ]


def test_of_two_copies_of_a_component_the_shards_are_read_as_diffusers_does(tmp_path):
    folder = component(tmp_path / "unet", 1, shards=2)
    twin = {name: tensor + 1 for name, tensor in tensors_of(1).items()}
    save_file(twin, folder / f"{DIFFUSERS}.safetensors")
    run_mergeplan(config_text("passthrough", [folder]), tmp_path / "out")
    found = load_file(tmp_path / "out" / f"{DIFFUSERS}.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors_of(1).items())
    (warning,) = open_checkpoint(str(folder)).warnings
    assert "is read, as diffusers does" in warning


def test_a_component_in_torchs_format_is_read(tmp_path):
    folder = component(tmp_path / "unet", 1)
    (folder / f"{DIFFUSERS}.safetensors").unlink()
    torch.save(tensors_of(1), folder / f"{DIFFUSERS}.bin")
    run_mergeplan(config_text("passthrough", [folder]), tmp_path / "out")
    assert list(weights_of(tmp_path / "out")) == [f"{DIFFUSERS}.safetensors"]


def test_a_whole_pipeline_is_refused_with_the_name_of_a_component(tmp_path):
    component(tmp_path / "unet", 1)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(InputError, match="a whole diffusers pipeline") as caught:
        open_checkpoint(str(tmp_path))
    assert f"such as `{tmp_path / 'unet'}`" in (caught.value.hint or "")
    shutil.rmtree(tmp_path / "unet")
    with pytest.raises(InputError, match="a whole diffusers pipeline"):
        open_checkpoint(str(tmp_path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"nothing\.safetensors` is not a folder"):
        open_checkpoint(str(tmp_path / "nothing.safetensors"))
