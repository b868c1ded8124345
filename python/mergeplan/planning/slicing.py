"""Layers that are taken from their models one by one, and numbered anew in the output.

As in mergekit, what stands before the layers comes from the first slice's sources, and what stands
behind them from the last one's. Tensors are told apart by their names, which must be Llama's.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.head_names import heads_in
from mergeplan.checkpoints.heads import ties
from mergeplan.checkpoints.passed_over import BEHIND_THE_LAST, reason_to_pass_over
from mergeplan.config.config import MergeConfig
from mergeplan.config.scopes import ModelInput
from mergeplan.errors import InputError
from mergeplan.planning.pairing import Fault

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
BEFORE = ("model.embed_tokens.",)
BEHIND = ("model.norm.", "lm_head.")


def beyond_names(config: MergeConfig, checkpoints: Sequence[Checkpoint]) -> str | None:
    """Why names are not enough to plan a merge of these models: `because of …`, or `None`."""
    if not config.is_sliced:
        return None
    for checkpoint in checkpoints:
        for name, tensor in checkpoint.tensors.items():
            known = _LAYER.match(name) or name.startswith((*BEFORE, *BEHIND))
            if not known and not reason_to_pass_over(name, tensor.shape, checkpoint.config):
                return f"because of `slices` and `{name}` in `{checkpoint.name}`"
    return None


def passed_over(checkpoint: Checkpoint) -> dict[str, str]:
    """What slices may lack of a model beside the layers that they do not choose: with reasons."""
    found = {}
    for name, tensor in checkpoint.tensors.items():
        reason = reason_to_pass_over(name, tensor.shape, checkpoint.config)
        if reason and (reason == BEHIND_THE_LAST or not _LAYER.match(name)):
            found[name] = reason
    return found


def count_layers(checkpoint: Checkpoint) -> int:
    """Layers that a checkpoint has tensors of."""
    found = (_LAYER.match(name) for name in checkpoint.tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def range_faults(sources: Sequence[ModelInput], checkpoints: Sequence[Checkpoint]) -> list[Fault]:
    """Ranges that reach beyond the last layer of their model."""
    faults = []
    for source, checkpoint in zip(sources, checkpoints, strict=True):
        count = count_layers(checkpoint)
        if source.layers is not None and source.layers[1] > count:
            error = InputError(
                f"model `{source.path}`: expected a `layer_range` within [0, {count}], found"
                f" {list(source.layers)}",
                f"it has {count} layers, and a range ends with the layer after its last one",
            )
            faults.append(Fault("layers", source.path, "", error))
    return faults


def layer_views(
    checkpoints: Sequence[Checkpoint],
    sources: Sequence[ModelInput],
    first: int,
    outside: tuple[str, ...],
) -> list[Checkpoint]:
    """The sources of a slice, with their tensors under the output's names.

    Args:
        checkpoints: One for each source, which have their layers.
        first: Number of the slice's first layer in the output.
        outside: Beginnings of the names beside the layers that belong to the slice.
    """
    shifts = [first - source.layers[0] for source in sources if source.layers is not None]
    views = []
    for checkpoint, source, shift in zip(checkpoints, sources, shifts, strict=True):
        tensors = {
            _renumber(name, shift): tensor
            for name, tensor in checkpoint.tensors.items()
            if _is_within(name, source.layers) or name.startswith(outside)
        }
        views.append(replace(checkpoint, tensors=tensors))
    names = set().union(*(view.tensors for view in views))
    return [
        replace(view, own_names={n: view.own_name(_renumber(n, -shift)) for n in names})
        for view, shift in zip(views, shifts, strict=True)
    ]


def own_heads(checkpoints: Sequence[Checkpoint]) -> set[str]:
    """The heads of models that have one beside their embedding."""
    untied = [checkpoint for checkpoint in checkpoints if not ties(checkpoint)]
    return {name for checkpoint in untied for name in heads_in(checkpoint.of_words)}


def depth_within(tensor: str, first: int, count: int) -> float:
    """Place of a tensor along the gradients of a slice, in [0, 1].

    Args:
        first: Number of the slice's first layer.
        count: Its layers.
    """
    match = _LAYER.match(tensor)
    if match is None:
        return 0.0
    return (int(match[1]) - first) / (count - 1) if count > 1 else 1.0


def _is_within(tensor: str, layers: tuple[int, int] | None) -> bool:
    match = _LAYER.match(tensor)
    return match is not None and layers is not None and layers[0] <= int(match[1]) < layers[1]


def _renumber(tensor: str, shift: int) -> str:
    match = _LAYER.match(tensor)
    if match is None:
        return tensor
    return f"{tensor[: match.start(1)]}{int(match[1]) + shift}{tensor[match.end(1) :]}"
