"""Which tensors of which models make an output tensor; some are derived first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mergekit.architecture import WeightInfo

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.layers import layer_of
from mergeplan.checkpoints.passed_over import reason_to_pass_over
from mergeplan.checkpoints.plan_models import Concat, Derived, Made, TensorRef
from mergeplan.planning.derived import DerivedModels
from mergeplan.planning.document import Part
from mergeplan.planning.mergekit.models import OpenModel
from mergeplan.planning.mergekit.packing import find_packed
from mergeplan.planning.rows import RowMap, rows_of


@dataclass(frozen=True)
class FoundTensor:
    """A model's tensor for an output tensor.

    Attributes:
        reference: As jobs refer to it; `None` where only mergekit can make it.
        name: Its name in the files, or the one that it gets.
        label: What mergekit sorts by: the name, or nothing where it converts.
        dtype: safetensors' name.
        plain_dtype: As of `checkpoint.Tensor`.
        parts: What the model's files call it or its pieces, where that is another name than
            mergekit's.
    """

    reference: TensorRef | None
    name: str
    label: str
    dtype: str
    shape: tuple[int, ...]
    plain_dtype: str | None = None
    parts: tuple[Part, ...] = ()

    def without_place(self, axis: int, length: int) -> "FoundTensor":
        """The same tensor, brought to another length along an axis by mergekit."""
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        return replace(self, reference=None, shape=shape)


def _of_any_layer(name: str) -> str:
    """A tensor's name without the numbers of its layer and its expert."""
    return re.sub(r"\.\d+(?=\.)", ".*", name)


class ModelTensors:
    """The models of a plan: checkpoints, and tensors that are derived from them.

    Args:
        checkpoints: By model, in the order in which the plan numbers them.
        model_types: As `config.json` has them, or `None`; what a conversion depends on.
        n_models: Models that the plan has already; what is derived here comes after them.
    """

    def __init__(
        self,
        checkpoints: Mapping[OpenModel, Checkpoint],
        model_types: Mapping[OpenModel, str],
        n_models: int,
    ) -> None:
        self._checkpoints = dict(checkpoints)
        self._opened = list(checkpoints.values())
        self._types = model_types
        self._n_models = n_models
        self._numbers = {model: number for number, model in enumerate(checkpoints)}
        self._derived = DerivedModels(n_models)
        self._used: dict[OpenModel, set[str]] = {model: set() for model in checkpoints}

    def find(self, model: OpenModel, weight: WeightInfo) -> FoundTensor | None:
        """A model's tensor for a weight, or `None`."""
        tensors = self._checkpoints[model].tensors
        for name in (weight.name, *(weight.aliases or ()), *(weight.tied_names or ())):
            if name in tensors:
                return self._stored(model, name, name)
        for target in (weight.name, *(weight.aliases or ())):
            packed = find_packed(self._types[model], tensors, target)
            if packed is None:
                continue
            if packed.parts is None:
                return FoundTensor(None, target, "", packed.dtype, packed.shape)
            own = tuple(Part(part, tensors[part].shape) for part in packed.parts)
            if len(own) == 1 and own[0].shape == packed.shape:
                return replace(self._stored(model, own[0].tensor, ""), parts=own)
            pieces = [self._reference(model, part) for part in packed.parts]
            names = tuple(piece.tensor for piece in pieces)
            joined = Concat(pieces[0].model, names, packed.shape)
            reference = self._derive(model, target, joined)
            return FoundTensor(reference, target, "", packed.dtype, packed.shape, parts=own)
        return None

    def name_of(self, model: OpenModel) -> str:
        """A model as the config writes it."""
        return self._checkpoints[model].name

    def unused(self, *, layers_too: bool) -> dict[OpenModel, list[str]]:
        """For each model the tensors that nothing of the output is made from, and that count.

        Args:
            layers_too: Whether the tensors of every layer count. Where layers are chosen, those
                count of which no layer's is used.
        """
        found = {}
        used = {_of_any_layer(name) for names in self._used.values() for name in names}
        for model, checkpoint in self._checkpoints.items():
            names = [
                name
                for name in sorted(set(checkpoint.tensors) - self._used[model])
                if (layers_too or not layer_of(name) or _of_any_layer(name) not in used)
                and not reason_to_pass_over(name, checkpoint.tensors[name].shape, checkpoint.config)
            ]
            if names:
                found[model] = names
        return found

    def with_rows(
        self, model: OpenModel, found: Mapping[OpenModel, FoundTensor], rows: RowMap
    ) -> FoundTensor:
        """A model's tensor brought to another vocabulary, some rows perhaps of other models.

        Args:
            found: The tensors that `rows` numbers, in that order.
        """
        own = found[model]
        tensors = list(found.values())
        if rows.is_identity(own.shape[0]):
            return own
        references = [t.reference for t in tensors if t.reference is not None]
        made = rows_of(references, rows)
        shape = (rows.n_rows, *own.shape[1:])
        reference = self._derive(model, f"{own.name} (rows)", made)
        return replace(own, reference=reference, shape=shape)

    @property
    def derived(self) -> tuple[Derived, ...]:
        """The derived models, as the plan lists them behind the others."""
        return self._derived.models

    def is_made(self, reference: TensorRef) -> bool:
        """Whether a tensor is computed, and lies in no file."""
        number = reference.model
        return number >= self._n_models or bool(self._opened[number].made)

    def _stored(self, model: OpenModel, name: str, label: str) -> FoundTensor:
        tensor = self._checkpoints[model].tensors[name]
        reference = self._reference(model, name)
        plain = tensor.plain_dtype
        return FoundTensor(reference, name, label, tensor.dtype, tensor.shape, plain)

    def _reference(self, model: OpenModel, name: str) -> TensorRef:
        self._used[model].add(name)
        return TensorRef(self._numbers[model], name)

    def _derive(self, model: OpenModel, name: str, how: Made) -> TensorRef:
        return self._derived.add(self._numbers[model], name, how)
