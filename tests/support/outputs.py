"""Two output folders held against each other, as whoever loads them sees them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mergeplan.config.methods import METHODS
from tests.support.backends import values
from tests.support.checkpoints import load_tensors
from tests.support.compare import EXACT, FLOAT32_SUMS, ulp

# Methods that sum over whole tensors; mergekit's own sums are float32.
SUMMING = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock", "sce")
# How often a last place of a norm may come to in the result, see `compare.conditioning`.
GROWTH = {"multislerp": 4.0, "karcher": 2.0, "model_stock": 2.0}
# A choice by a threshold may fall the other way for few elements, see docs/agreement.md.
FLIPS = {"arcee_fusion": 0.005}
Tensors = dict[str, torch.Tensor]
MANIFEST = "mergeplan_manifest.json"

# mergekit drops it with a tokenizer that the config asks for; see docs/agreement.md.
GENERATION = {"generation_config.json"}


def assert_same_output(
    ours: Path, theirs: Path, config: dict[str, Any], by_chance: Path | None
) -> None:
    """The same files, tensors, config, tokenizer, card and values.

    Args:
        config: What was merged.
        by_chance: The base, where chance decides the values: then only the share of elements that
            stay the base's, and how far the others move, are compared.
    """
    if _is_packed(theirs):
        # mergekit keeps converted tensors in a set, so that chance decides which shard they are in.
        assert _companions(ours) - GENERATION == _companions(theirs) - GENERATION
    else:
        mine = {path.name for path in ours.iterdir()} - {MANIFEST}
        assert mine - GENERATION == {path.name for path in theirs.iterdir()} - GENERATION
        _assert_same_headers(ours, theirs)
    _assert_same_config(ours, theirs, config)
    _assert_same_tokenizer(ours, theirs)
    _assert_same_card(ours, theirs)
    found, expected = load_tensors(ours), load_tensors(theirs)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        if by_chance is None:
            assert_near(found[name], tensor, config, name)
    if by_chance is not None and "'slices'" not in str(config):
        assert_same_chances(found, expected, load_tensors(by_chance))


def _is_packed(folder: Path) -> bool:
    """Whether the experts of a mixture are packed into one tensor for each layer."""
    return any(".experts." in name for name in load_tensors(folder))


def _companions(folder: Path) -> set[str]:
    names = {path.name for path in folder.iterdir()} - {MANIFEST}
    return {name for name in names if not name.endswith(".safetensors")}


def assert_near(
    found: torch.Tensor, expected: torch.Tensor, config: dict[str, Any], name: str
) -> None:
    """Equal where mergekit is reproducible; elsewhere within the method's class of agreement."""
    assert torch.isfinite(expected.float()).all(), f"{name}: mergekit's own result is not finite"
    different = values(found) != values(expected)
    method = config["merge_method"]
    if not different.any() or is_exact(config):
        assert not different.any(), f"{name}: {int(different.sum())} elements differ"
        return
    ours, theirs = values(found), values(expected)
    largest = np.abs(theirs).max(initial=0.0)
    near = (FLOAT32_SUMS if method in SUMMING else EXACT) * largest * GROWTH.get(method, 1.0)
    for dtype in _dtypes(config, expected):
        if dtype != "float32":
            places = 2 * GROWTH.get(method, 1.0)
            near = near + places * ulp(np.maximum(np.abs(theirs), largest / 4), dtype)
    outside = np.count_nonzero(np.abs(ours - theirs) > near)
    allowed = FLIPS.get(method, 0.0)
    assert outside <= (2 + allowed * theirs.size if allowed else 0), f"{name}: {outside} differ"


def assert_same_chances(found: Tensors, expected: Tensors, base: Tensors) -> None:
    """As many elements are left as they are in the base, and the others move as far."""
    same = [name for name in expected if name in base and expected[name].shape == base[name].shape]
    total, kept, moved = 0, [0, 0], [0.0, 0.0]
    for name in same:
        before = base[name].to(expected[name].dtype)
        total += before.numel()
        for number, after in enumerate((found[name], expected[name])):
            kept[number] += int((after == before).sum())
            moved[number] += float((after.double() - before.double()).abs().sum())
    share = kept[1] / total
    assert abs(kept[0] - kept[1]) <= 5 * np.sqrt(2 * total * share * (1 - share) + 1)
    assert abs(moved[0] - moved[1]) <= 0.03 * moved[1]


def is_exact(config: dict[str, Any]) -> bool:
    """Whether the merge is of class A.

    Rows that pad a vocabulary are means of all others, whose sums in float32 are torch's own.
    """
    padded = "pad_to_multiple_of" in (config.get("tokenizer") or {})
    return (
        not padded and METHODS[config["merge_method"]].family != "group" and not _rescales(config)
    )


def _rescales(config: Any, within: bool = False) -> bool:
    """Whether some setting of `rescale` is true for some tensor."""
    if isinstance(config, dict):
        return any(_rescales(value, within or key == "rescale") for key, value in config.items())
    if isinstance(config, list):
        return any(_rescales(value, within) for value in config)
    return within and config is True


def _dtypes(config: dict[str, Any], stored: torch.Tensor) -> set[str]:
    """Dtypes that values were rounded to on their way."""
    names = {config.get("dtype"), config.get("out_dtype"), str(stored.dtype)}
    return {str(name).removeprefix("torch.") for name in names if name}


def _header(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {"names": list(file.keys()), "metadata": file.metadata()}


def _assert_same_headers(ours: Path, theirs: Path) -> None:
    for path in ours.glob("*.safetensors"):
        assert _header(path) == _header(theirs / path.name)
    if (ours / "model.safetensors.index.json").exists():
        mine, his = (
            json.loads((folder / "model.safetensors.index.json").read_text())
            for folder in (ours, theirs)
        )
        assert mine["weight_map"] == his["weight_map"]
        assert mine["metadata"]["total_size"] == his["metadata"]["total_size"]


def _assert_same_config(ours: Path, theirs: Path, config: dict[str, Any]) -> None:
    """config.json as AutoConfig reads it, but for what docs/agreement.md lists."""
    from transformers import AutoConfig

    found, expected = (AutoConfig.from_pretrained(folder).to_dict() for folder in (ours, theirs))
    for one in (found, expected):
        one.pop("_name_or_path", None)
        if "'slices'" in str(config):
            # mergekit leaves the base's list whatever layers are taken; ours is theirs.
            one.pop("layer_types", None)
    tensors = load_tensors(theirs)
    if not config.get("dtype") and not config.get("out_dtype"):
        # mergekit leaves the base's dtype, whatever the tensors have.
        expected["dtype"] = found["dtype"]
        assert str(found["dtype"]) in {
            str(t.dtype).removeprefix("torch.") for t in tensors.values()
        }
    assert found == expected


def _assert_same_tokenizer(ours: Path, theirs: Path) -> None:
    """The tokenizer as AutoTokenizer reads it."""
    from transformers import AutoTokenizer

    if not (theirs / "tokenizer_config.json").exists():
        return
    found, expected = (AutoTokenizer.from_pretrained(folder) for folder in (ours, theirs))
    assert found.get_vocab() == expected.get_vocab()
    assert found.special_tokens_map == expected.special_tokens_map
    assert found.added_tokens_decoder == expected.added_tokens_decoder
    assert found.chat_template == expected.chat_template
    text = "the dog <|im_start|> return x + 1"
    assert found(text)["input_ids"] == expected(text)["input_ids"]


def _assert_same_card(ours: Path, theirs: Path) -> None:
    """The model card's front matter, which the hub reads, and the config's text, of which the
    manifest has what mergekit has in a file of its own."""
    found, expected = (_front_matter(folder / "README.md") for folder in (ours, theirs))
    assert found["base_model"] == expected["base_model"]
    assert found["library_name"] == expected["library_name"]
    assert set(found["tags"]) == {*expected["tags"], "mergeplan"}
    manifest = json.loads((ours / "mergeplan_manifest.json").read_text())
    assert manifest["config"] == (theirs / "mergekit_config.yml").read_text()


def _front_matter(path: Path) -> dict[str, Any]:
    _, text, _ = path.read_text().split("---\n", 2)
    return yaml.safe_load(text)
