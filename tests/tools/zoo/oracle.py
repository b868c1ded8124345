"""What a merge must give, from the files' tensors alone and from how transformers loads them.

A copy of the base whose elements are numbered is loaded once: it shows which element of which file
each element of the model is. So a merge done on the files' tensors is known as a model too, under
whatever names and however packed.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mergeplan.reference import DeltaOptions, merge_deltas
from tests.support.checkpoints import load_tensors

Tensors = Mapping[str, torch.Tensor]
# Of the base, too. Their products are exact, and their sum is one.
WEIGHTS = (0.25, 0.25, 0.5)
DENSITY = 0.5
# Numbers of elements begin beyond what a loader may set a tensor to.
_FIRST = 1 << 12
_NAN = torch.tensor([torch.nan])
_DIGITS = str.maketrans("", "", "0123456789")


@dataclass(frozen=True)
class Loaded:
    """A model that transformers has loaded, and what it says of it."""

    tensors: dict[str, torch.Tensor]
    complaints: dict[str, list[str]]
    config: dict[str, Any]


def load(model_class: Any, folder: Path) -> Loaded:
    model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    complaints = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    config = {**model.config.to_dict(), "_name_or_path": ""}
    return Loaded(dict(model.state_dict()), complaints, config)


@dataclass(frozen=True)
class Oracle:
    """The merges of one pool.

    Attributes:
        models: The tensors of base and fine-tunes, by name.
        numbered: The base as loaded, with numbers of the files' elements for values.
    """

    models: tuple[Tensors, ...]
    numbered: Loaded

    @cached_property
    def first(self) -> dict[str, int]:
        """The number of each tensor's first element."""
        return first_numbers(self.models[0])

    @cached_property
    def packs(self) -> dict[str, torch.Tensor]:
        """Numbers of the elements of those tensors that gather many: a mixture's experts.

        Their parts differ in a number of their names; parts that differ otherwise (query and key)
        keep their own statistics.
        """
        names = list(self.first)
        ends = torch.tensor(list(self.first.values()))
        found = {}
        for name, numbers in self._ids.items():
            ids = numbers[numbers >= 0]
            owners = torch.unique(torch.searchsorted(ends, ids, right=True) - 1)
            parts = {names[i] for i in owners.tolist()}
            if len({part.translate(_DIGITS) for part in parts}) < len(parts):
                found[name] = ids
        return found

    @cached_property
    def _ids(self) -> dict[str, torch.Tensor]:
        """Numbers of the elements of each tensor; -1 where it has a value of the loader's own."""
        total = sum(tensor.numel() for tensor in self.models[0].values())
        unread = self.numbered.complaints.get("missing_keys", ())
        found = {}
        for name, tensor in self.numbered.tensors.items():
            if tensor.is_floating_point() and name not in unread:
                ids = tensor.long() - _FIRST
                known = (tensor == tensor.round()) & (ids >= 0) & (ids < total)
                found[name] = torch.where(known, ids, -1)
        return found

    def files(self, method: str) -> dict[str, torch.Tensor]:
        """Every tensor of a merge, as the base's files have them."""
        base = self.models[0]
        flat = [torch.cat([t.reshape(-1).float() for t in model.values()]) for model in self.models]
        merged = flat[0].clone()
        for name, tensor in base.items():
            if tensor.is_floating_point():
                here = slice(self.first[name], self.first[name] + tensor.numel())
                merged[here] = _merge(method, *(values[here] for values in flat))
        for ids in self.packs.values():
            merged[ids] = _merge(method, *(values[ids] for values in flat))
        return {
            name: merged[start : start + base[name].numel()].view_as(base[name]).to(base[name])
            for name, start in self.first.items()
        }

    def model(self, files: Tensors) -> dict[str, torch.Tensor]:
        """The same as transformers has it once it is loaded; NaN for values of the loader's own."""
        flat = torch.cat([*(tensor.reshape(-1).float() for tensor in files.values()), _NAN])
        return {name: flat[ids] for name, ids in self._ids.items()}


def oracle_of(model_class: Any, pool: Path) -> Oracle:
    models = tuple(load_tensors(pool / name) for name in ("base", "a", "b"))
    names = list(models[0])
    numbered = pool / "numbered"
    _save_numbered(models[0], pool / "base", numbered)
    return Oracle(
        tuple({name: model[name] for name in names} for model in models),
        load(model_class, numbered),
    )


def first_numbers(tensors: Tensors) -> dict[str, int]:
    ends = np.cumsum([0, *(tensor.numel() for tensor in tensors.values())])
    return dict(zip(tensors, ends.tolist(), strict=False))


def _save_numbered(tensors: Tensors, base: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    total = sum(tensor.numel() for tensor in tensors.values())
    assert total + _FIRST < 1 << 24, "float32 cannot number so many elements"
    numbers = {
        name: torch.arange(start, start + tensors[name].numel())
        .add(_FIRST)
        .view(tensors[name].shape)
        .float()
        if tensors[name].is_floating_point()
        else tensors[name]
        for name, start in first_numbers(tensors).items()
    }
    folder.mkdir()
    shutil.copy(base / "config.json", folder)
    save_file(numbers, folder / "model.safetensors", metadata={"format": "pt"})


def _merge(method: str, base: torch.Tensor, *experts: torch.Tensor) -> torch.Tensor:
    if method == "linear":
        first, second, third = (w * t for w, t in zip(WEIGHTS, (base, *experts), strict=True))
        return (first + second) + third
    options = DeltaOptions(sparsify="magnitude", consensus=True, normalize=True)
    arrays = [expert.numpy() for expert in experts]
    ones = [1.0] * len(arrays)
    merged = merge_deltas(
        base.numpy(), arrays, ones, [DENSITY] * len(arrays), options, precision="float32"
    )
    return torch.from_numpy(merged).float()
