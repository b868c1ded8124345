"""Which files a model is read from: as transformers reads them, or refused by name (issue 20)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.errors import InputError, MissingInputError
from mergeplan.evaluation.loading import load_model
from mergeplan.inspection.diff import diff
from mergeplan.inspection.inspect import inspect
from mergeplan.pool.geometry.compare import geometry_of
from mergeplan.pool.pool import PoolSize
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A tiny model in two shards, its head by far not the embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("llama")
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "whole")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return save_checkpoint(folder / "shards", tensors, config.to_dict(), shards=2)


@pytest.fixture
def shards(llama, tmp_path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def by_transformers(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def by_merging(folder: Path, out: Path) -> dict[str, torch.Tensor]:
    run_mergeplan(config_text("passthrough", [folder]), out)
    return load_tensors(out)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def unlist(folder: Path, *endings: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    places = index["weight_map"]
    index["weight_map"] = {n: f for n, f in places.items() if not n.endswith(endings)}
    assert len(index["weight_map"]) == len(places) - len(endings)
    (folder / INDEX).write_text(json.dumps(index))


def one_file(folder: Path, name: str = "model.safetensors", plus: float = 0.0) -> None:
    tensors = {name: tensor + plus for name, tensor in load_tensors(folder).items()}
    save_file(tensors, folder / name, metadata={"format": "pt"})


def test_what_an_index_does_not_list_is_read_as_transformers_reads_it(shards, llama, tmp_path):
    unlist(shards, "lm_head.weight", "q_proj.weight")
    expected = by_transformers(shards)
    assert_same(expected, by_transformers(llama))
    assert_same(by_merging(shards, tmp_path / "out"), expected)
    (warning,) = open_checkpoint(str(shards)).warnings
    assert f"`{shards / INDEX}` does not list 2 " in warning
    assert "`lm_head.weight` in `model-0000" in warning


def test_every_command_reads_the_same_and_says_so(shards, llama, tmp_path):
    unlist(shards, "lm_head.weight")
    said = "does not list 1 of the tensors"
    (tmp_path / "c.yml").write_text(
        config_text("linear", [shards, llama], parameters={"weight": 1})
    )
    for args in (
        ("merge", tmp_path / "c.yml", tmp_path / "out", "--dry-run"),
        ("merge", tmp_path / "c.yml", tmp_path / "out"),
        ("inspect", shards),
        ("inspect", tmp_path / "c.yml"),
    ):
        run = cli(*args)
        assert run.returncode == 0, run.stderr
        assert (run.stdout + run.stderr).count(said) == 1, args
    assert not diff(shards, llama).differing
    assert_same(load_model(shards).state_dict(), by_transformers(llama))
    geometry = geometry_of(PoolSize(shards, {"a": llama}))
    assert not geometry.left_out


def test_of_two_copies_the_one_that_transformers_loads_is_read(shards, tmp_path):
    one_file(shards, plus=1.0)
    expected = by_transformers(shards)
    assert not torch.equal(expected["lm_head.weight"], load_tensors_of_shards(shards))
    assert_same(by_merging(shards, tmp_path / "out"), expected)
    assert_same(load_model(shards).state_dict(), expected)
    (warning,) = open_checkpoint(str(shards)).warnings
    assert "holds its model twice: `model.safetensors` is read" in warning
    assert INDEX in warning
    assert len(diff(shards, shards / INDEX).differing) == len(expected)


def load_tensors_of_shards(folder: Path) -> torch.Tensor:
    checkpoint = open_checkpoint(str(folder / INDEX))
    from safetensors import safe_open

    with safe_open(folder / checkpoint.tensors["lm_head.weight"].file, "pt") as file:
        return file.get_tensor("lm_head.weight")


@pytest.mark.parametrize("how", ["a tensor less", "another dtype", "another shape"])
def test_two_copies_that_differ_are_refused_and_either_may_be_given(how, shards, tmp_path):
    tensors = load_tensors(shards)
    head = tensors.pop("lm_head.weight")
    if how != "a tensor less":
        head = head.bfloat16() if how == "another dtype" else head[:5].clone()
        tensors["lm_head.weight"] = head
    save_file(tensors, shards / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not the same model: tensor `lm_head.weight`") as caught:
        open_checkpoint(str(shards))
    for file in ("model.safetensors", INDEX):
        assert f"`{file}`" in caught.value.message
        assert f"`{shards / file}`" in (caught.value.hint or "")
    assert_same(by_merging(shards / "model.safetensors", tmp_path / "one"), tensors)
    assert len(by_merging(shards / INDEX, tmp_path / "two")) == 12


def test_an_index_whose_shards_became_one_file_is_passed_over(shards, llama, tmp_path):
    one_file(shards)
    for path in shards.glob("model-*"):
        path.unlink()
    assert_same(by_merging(shards, tmp_path / "out"), by_transformers(llama))
    (warning,) = open_checkpoint(str(shards)).warnings
    assert f"none of the files of `{shards / INDEX}`" in warning


MISTRALS = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
    "q_proj.weight": "layers.0.attention.wq.weight",
}


def mistrals(folder: Path) -> dict[str, torch.Tensor]:
    """The same under Mistral's names, or names like them."""
    names = load_tensors(folder)
    return {
        next((new for end, new in MISTRALS.items() if name.endswith(end)), f"layers.{name}"): t
        for name, t in names.items()
    }


def test_mistrals_own_copy_is_passed_over(shards, llama, tmp_path):
    tensors = mistrals(shards)
    save_file(tensors, shards / "consolidated.safetensors", metadata={"format": "pt"})
    (warning,) = open_checkpoint(str(shards)).warnings
    assert "`consolidated.safetensors` holds the same model under Mistral's own names" in warning
    assert_same(by_merging(shards, tmp_path / "out"), by_transformers(llama))
    # Either layout may leave out a head that is tied.
    del tensors["output.weight"]
    save_file(tensors, shards / "consolidated.safetensors", metadata={"format": "pt"})
    assert len(open_checkpoint(str(shards)).warnings) == 1
    del tensors["norm.weight"]
    save_file(tensors, shards / "consolidated.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"`consolidated.safetensors`, which are not the same"):
        open_checkpoint(str(shards))


def test_a_consolidated_copy_under_the_shards_names_is_judged_by_them(shards, llama, tmp_path):
    one_file(shards, "consolidated.safetensors", plus=1.0)
    (warning,) = open_checkpoint(str(shards)).warnings
    assert "`consolidated.safetensors` holds the same tensors" in warning
    assert_same(by_merging(shards, tmp_path / "out"), by_transformers(llama))
    tensors = load_tensors(llama)
    del tensors["lm_head.weight"]
    save_file(tensors, shards / "consolidated.safetensors")
    with pytest.raises(InputError, match="`lm_head.weight` is in `model.safetensors.index.json`"):
        open_checkpoint(str(shards))


def test_shards_without_an_index_are_read_everywhere(shards, llama, tmp_path):
    (shards / INDEX).unlink()
    expected = by_transformers(llama)
    (warning,) = open_checkpoint(str(shards)).warnings
    assert warning == f"`{shards}` has 2 shards and no index: all of them are read"
    assert_same(by_merging(shards, tmp_path / "out"), expected)
    assert_same(load_model(shards).state_dict(), expected)
    assert not diff(shards, llama).differing
    found = inspect(shards)
    assert found.warnings == (warning,)
    assert len(found.checkpoints[0].files) == 2
    assert not geometry_of(PoolSize(llama, {"a": shards})).left_out


def test_a_tensor_in_two_shards_is_named_with_both(shards):
    first, second = sorted(shards.glob("model-*"))
    twice = next(iter(load_file(first)))
    again = load_file(second) | {twice: load_file(first)[twice]}
    save_file(again, second, metadata={"format": "pt"})
    with pytest.raises(InputError) as caught:
        open_checkpoint(str(shards))
    assert caught.value.message == f"`{second}`: tensor `{twice}` stands in `{first.name}` too"


def test_shards_without_an_index_must_be_one_checkpoint(shards):
    (shards / INDEX).unlink()
    first, second = sorted(shards.glob("model-*"))
    kept = second.read_bytes()
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=f"`{second}`: tensor .* stands in `{first.name}` too"):
        open_checkpoint(str(shards))
    second.write_bytes(kept)
    other = second.rename(shards / "model-00003-of-00003.safetensors")
    with pytest.raises(InputError, match="shards of several checkpoints and no index") as caught:
        open_checkpoint(str(shards))
    assert f"`{first.name}` and `{other.name}`" in caught.value.message
    other.unlink()
    with pytest.raises(MissingInputError, match="1 of 2 shards are not there, such as number 2"):
        open_checkpoint(str(shards))


def test_an_index_that_leaves_out_a_shard_is_refused_unless_it_is_another_checkpoints(shards):
    name = "model-00001-of-00002.safetensors"
    first = load_tensors(shards).keys() - json_names(shards, name)
    index = {"weight_map": dict.fromkeys(first, "model-00002-of-00002.safetensors")}
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"names only 1 of the 2 shards .*not `{name}`"):
        open_checkpoint(str(shards))
    (shards / name).rename(shards / "model-00004-of-00004.safetensors")
    (warning,) = open_checkpoint(str(shards)).warnings
    assert "does not name `model-00004-of-00004.safetensors`: passed over" in warning


def json_names(folder: Path, file: str) -> set[str]:
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    return {name for name, place in places.items() if place == file}


def test_shards_that_an_index_names_are_missed_by_number(shards):
    for path in shards.glob("model-*"):
        path.unlink()
    words = r"2 of its 2 files are not there, such as `model-00001-of-00002.safetensors`"
    with pytest.raises(MissingInputError, match=words) as caught:
        open_checkpoint(str(shards))
    assert "fetch it again" in (caught.value.hint or "")


def test_a_config_may_name_its_weights(shards, tmp_path):
    tensors = {name: tensor + 1 for name, tensor in load_tensors(shards).items()}
    save_file(tensors, shards / "mine.safetensors", metadata={"format": "pt"})
    config = json.loads((shards / "config.json").read_text())
    for named in ("mine.safetensors", "../mine.safetensors"):
        config["transformers_weights"] = named
        (shards / "config.json").write_text(json.dumps(config))
        if named == "mine.safetensors":
            assert_same(by_merging(shards, tmp_path / "out"), tensors)
            assert_same(by_transformers(shards), tensors)
        else:
            with pytest.raises(InputError, match="expected a file of the folder"):
                open_checkpoint(str(shards))


def test_files_that_no_loader_reads_are_named(shards):
    save_file({"x": torch.ones(1)}, shards / "mtp.safetensors")
    (warning,) = open_checkpoint(str(shards)).warnings
    assert f"`mtp.safetensors` is no part of `{INDEX}`: passed over" in warning


@pytest.mark.parametrize("indexed", [True, False])
def test_bin_shards_are_read_as_safetensors_are(indexed, shards, llama, tmp_path):
    tensors = load_tensors(shards)
    (folder := tmp_path / "bin").mkdir()
    (folder / "config.json").write_bytes((shards / "config.json").read_bytes())
    weight_map = {}
    for number in (1, 2):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        part = {name: tensors[name] for name in sorted(tensors)[number - 1 :: 2]}
        torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if indexed:
        del weight_map["lm_head.weight"]
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (warning,) = open_checkpoint(str(folder)).warnings
    assert ("does not list 1" if indexed else "no index") in warning
    expected = by_transformers(llama)
    assert_same(by_merging(folder, tmp_path / "out"), expected)
    assert_same(load_model(folder).state_dict(), expected)
    assert not diff(folder, llama).differing
