"""Weights that the model has under another name than its files, or packed: a mixture's experts.

transformers has a table of conversions from checkpoints to models, and mergekit reads checkpoints
through it. Here a conversion is tried on tensors without data (for the shape) and on tiny ones
whose elements are numbered (for where each goes), so that one that only moves whole tensors becomes
a concatenation of bytes, and no weight is read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mergekit.architecture.conversion import convert_checkpoint_tensors

from mergeplan.checkpoints.checkpoint import Tensor

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class PackedTensor:
    """A tensor that is made from others.

    Attributes:
        parts: The tensors whose bytes it has, one after the other; `None` where it is computed.
    """

    shape: tuple[int, ...]
    dtype: str
    parts: tuple[str, ...] | None


def find_packed(model_type: str, tensors: Mapping[str, Tensor], target: str) -> PackedTensor | None:
    """How a conversion makes `target` out of a checkpoint's tensors; `None` where none does."""
    near = _same_layer(tensors, target)
    shapes = {name: torch.empty(t.shape, device="meta") for name, t in near.items()}
    made = convert_checkpoint_tensors(model_type, dict(shapes), target)
    if made is None:
        return None
    parts = _parts(model_type, near, target)
    dtypes = {near[name].dtype for name in parts or near}
    if len(dtypes) != 1:
        parts = None
    # Where dtypes differ, torch promotes: of what is computed, mergekit's executor tells the dtype.
    dtype = dtypes.pop() if len(dtypes) == 1 else "F32"
    return PackedTensor(tuple(made.shape), dtype, parts)


def _same_layer(tensors: Mapping[str, Tensor], target: str) -> dict[str, Tensor]:
    """The tensors of the target's layer: conversions look at each of them with several patterns."""
    layer = _LAYER.search(target)
    if layer is None:
        return {name: t for name, t in tensors.items() if not _LAYER.search(name)}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if (found := _LAYER.search(name)) and found[1] == layer[1]
    }


def _parts(model_type: str, tensors: Mapping[str, Tensor], target: str) -> tuple[str, ...] | None:
    """The tensors that the target is made of, whole and in order, if it is."""
    # Each length of a side becomes a small one of its own, so that sides fit where they did.
    lengths = sorted({side for tensor in tensors.values() for side in tensor.shape})
    small = {side: 2 + number for number, side in enumerate(lengths)}
    numbered = {}
    owners = {}
    begin = 0
    for name, tensor in tensors.items():
        shape = [small[side] for side in tensor.shape]
        ids = torch.arange(begin, begin + int(torch.Size(shape).numel()))
        owners[begin] = (name, ids)
        begin += len(ids)
        numbered[name] = ids.reshape(shape)
    made = convert_checkpoint_tensors(model_type, dict(numbered), target)
    if made is None:
        return None
    flat = made.reshape(-1)
    parts = []
    place = 0
    while place < len(flat):
        name, ids = owners.get(int(flat[place]), ("", flat[:0]))
        if not len(ids) or not torch.equal(flat[place : place + len(ids)], ids):
            return None
        parts.append(name)
        place += len(ids)
    return tuple(parts)
