"""Where the tensors of a checkpoint lie in a model that is loaded: names, tied and packed weights.

transformers renames some checkpoint tensors while it loads them, and packs the matrices of a
mixture's experts into one parameter. Its own table of conversions says which; here each tensor is
found as a view of the parameter that holds it.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mergeplan.errors import InputError, nearest

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def places_in(model: "torch.nn.Module", shapes: Mapping[str, tuple[int, ...]]) -> "Tensors":
    """A view of the model's memory for each checkpoint tensor.

    A tensor that the model ties to another one has no place of its own: it is left out, as it is
    when the model is loaded.

    Args:
        model: A torch module, of transformers or with parameters named as in the checkpoint.
        shapes: Shape of each checkpoint tensor.

    Raises:
        InputError: A tensor has no place, a parameter gets no tensor, or shapes differ.
    """
    state = _state(model)
    names = _Names(model, state)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    places: Tensors = {}
    owners: dict[int, str] = {}
    for name in sorted(shapes, key=lambda name: (names.target(name) in tied, name)):
        place = names.place(name)
        if place is None:
            raise InputError(
                f"tensor `{name}` has no place in the model",
                nearest(name, list(state)) or "merge checkpoints of the model's own architecture",
            )
        if tuple(place.shape) != tuple(shapes[name]):
            raise InputError(
                f"tensor `{name}`: expected the model's shape {list(place.shape)}, found"
                f" {list(shapes[name])}"
            )
        owner = owners.setdefault(_address(place, name), name)
        if owner == name:
            places[name] = place
        elif names.target(name) not in tied:
            raise InputError(f"tensors `{owner}` and `{name}` share one parameter of the model")
    _check_all_are_filled(model, places)
    return places


def ties_head(model: "torch.nn.Module") -> bool:
    """Whether head and embedding of a loaded model are one parameter."""
    ends = [getattr(model, f"get_{end}_embeddings", lambda: None)() for end in ("input", "output")]
    weights = [getattr(end, "weight", None) for end in ends]
    return weights[0] is not None and weights[0] is weights[1]


def tie_as(model: Any, *, own_head: bool, stores_head: bool) -> bool:
    """Tie a model of transformers as a merge into it does, or untie it.

    Args:
        own_head: Whether the merge has a head that is not its embedding.
        stores_head: Whether it has a tensor for the head.

    Returns:
        Whether anything was changed.
    """
    import torch

    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        return False  # it makes no words: there is nothing to tie
    if own_head and ties_head(model):
        head = model.get_output_embeddings()
        tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        same = [name for name in tied if model.get_parameter(name) is head.weight]
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.all_tied_weights_keys = {n: to for n, to in tied.items() if n not in same}
        model.config.tie_word_embeddings = False
        return True
    if not own_head and not stores_head and not ties_head(model):
        model.config.tie_word_embeddings = True
        model.tie_weights()
        if hasattr(model, "get_expanded_tied_weights_keys"):
            model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
        return True
    return False


def _state(model: "torch.nn.Module") -> "Tensors":
    """Parameters and buffers by every name that they have."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state = {**parameters, **dict(model.named_buffers(remove_duplicate=False))}
    for name, tensor in state.items():
        if tensor.device.type == "meta":
            raise InputError(f"parameter `{name}` has no memory: the model is on the meta device")
    return {name: tensor.detach() for name, tensor in state.items()}


def _address(tensor: "torch.Tensor", name: str) -> Any:
    return tensor.data_ptr() if tensor.numel() else name


def _check_all_are_filled(model: "torch.nn.Module", places: "Tensors") -> None:
    filled: dict[int, int] = {}
    for place in places.values():
        storage = place.untyped_storage().data_ptr()
        filled[storage] = filled.get(storage, 0) + place.numel()
    for name, parameter in model.named_parameters():
        if filled.get(parameter.untyped_storage().data_ptr(), 0) < parameter.numel():
            raise InputError(
                f"parameter `{name}` of the model gets nothing, or only in part, from the merge",
                "merge checkpoints of the model's own architecture",
            )


class _Names:
    """From a checkpoint's names to places in one model."""

    def __init__(self, model: "torch.nn.Module", state: "Tensors") -> None:
        self._state = state
        self._prefix = getattr(model, "base_model_prefix", "") or ""
        self._renamings, self._converters = _conversions(model)

    def target(self, name: str) -> str:
        """The parameter's name."""
        return self._resolve(name)[0]

    def place(self, name: str) -> "torch.Tensor | None":
        target, converter, pattern = self._resolve(name)
        parameter = self._state.get(target)
        if parameter is None or converter is None:
            return parameter
        return _packed_part(parameter, converter, pattern, name)

    def _resolve(self, name: str) -> tuple[str, Any, str]:
        if name in self._state:
            return name, None, ""
        renamed = name
        for renaming in self._renamings:
            renamed, _ = renaming.rename_source_key(renamed)
        converter, pattern = None, ""
        for candidate in self._converters:
            new, found = candidate.rename_source_key(renamed)
            if found is not None:
                renamed, converter, pattern = new, candidate, found
                break
        for spelling in (
            renamed,
            f"{self._prefix}.{renamed}",
            renamed.removeprefix(f"{self._prefix}."),
        ):
            if spelling in self._state:
                return spelling, converter, pattern
        return renamed, None, ""


def _conversions(model: "torch.nn.Module") -> tuple[list[Any], list[Any]]:
    """transformers' renamings and converters for a model; none before its version 5."""
    try:
        from transformers import PreTrainedModel
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter
    except ImportError:
        return [], []
    if not isinstance(model, PreTrainedModel):
        return [], []
    found = get_model_conversion_mapping(model)
    return (
        [one for one in found if not isinstance(one, WeightConverter)],
        [one for one in found if isinstance(one, WeightConverter)],
    )


def _packed_part(
    parameter: "torch.Tensor", converter: Any, pattern: str, name: str
) -> "torch.Tensor":
    """The part of a packed parameter that one checkpoint tensor fills.

    Experts are stacked along the first axis, and where several matrices of an expert are packed,
    these follow each other along its rows.
    """
    operations = [(type(one).__name__, getattr(one, "dim", None)) for one in converter.operations]
    parts = len(converter.source_patterns)
    stacked = operations[:1] == [("MergeModulelist", 0)]
    rest = operations[1:] if stacked else operations
    if rest not in ([], [("Concatenate", 1 if stacked else 0)]) or (parts > 1 and not rest):
        steps = ", ".join(one for one, _ in operations)
        raise InputError(
            f"tensor `{name}`: the model packs it by {steps}, which cannot be undone in place",
            "write the merge to disk, and load it",
        )
    part = converter.source_patterns.index(pattern)
    if stacked:
        numbers = re.search(r"\.(\d+)\.(?!.*\.\d+\.)", name)
        expert = int(numbers[1]) if numbers else parameter.shape[0]
        if expert >= parameter.shape[0]:
            raise InputError(f"tensor `{name}`: the model has {parameter.shape[0]} experts")
        parameter = parameter[expert]
    rows = parameter.shape[0] // parts
    return parameter[part * rows : (part + 1) * rows] if rest else parameter
