"""The models of a plan, as data: what `rust/core/src/plan/models.rs` reads, field for field.

A field whose name ends in `_` would be a word of Python; in the plan it has none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor of one of the plan's models, by the model's number."""

    model: int
    tensor: str


@dataclass(frozen=True, slots=True)
class Same:
    """Another tensor as it is."""

    kind: ClassVar = "same"

    model: int
    tensor: str

    @property
    def references(self) -> tuple[TensorRef, ...]:
        """The tensors that it is computed from."""
        return (TensorRef(self.model, self.tensor),)


@dataclass(frozen=True, slots=True)
class Cast:
    """Another tensor, rounded to a torch dtype."""

    kind: ClassVar = "cast"

    model: int
    tensor: str
    dtype: str

    @property
    def references(self) -> tuple[TensorRef, ...]:
        return (TensorRef(self.model, self.tensor),)


@dataclass(frozen=True, slots=True)
class Lora:
    """x + scale · B·A, rounded to `dtype`; x is the tensor that is named first."""

    kind: ClassVar = "lora"

    model: int
    tensor: str
    a: TensorRef
    b: TensorRef
    scale: float
    dtype: str
    transposed: bool

    @property
    def references(self) -> tuple[TensorRef, ...]:
        return (TensorRef(self.model, self.tensor), self.a, self.b)


@dataclass(frozen=True, slots=True)
class Concat:
    """Tensors of one model, one behind the other; `shape` is that of the whole."""

    kind: ClassVar = "concat"

    model: int
    tensors: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def references(self) -> tuple[TensorRef, ...]:
        return tuple(TensorRef(self.model, tensor) for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of some tensors in another order.

    Attributes:
        from_: For each row the number of its tensor, or -1 for zeros, or -2 for one of `means`.
        rows: For each row its number there.
        means: Lists of (tensor, row) whose mean is one row.
        padding: Rows at the end that are each the mean of all before.
    """

    kind: ClassVar = "rows"

    tensors: tuple[TensorRef, ...]
    from_: tuple[int, ...]
    rows: tuple[int, ...]
    means: tuple[tuple[tuple[int, int], ...], ...]
    padding: int

    @property
    def references(self) -> tuple[TensorRef, ...]:
        return self.tensors


Made = Same | Cast | Lora | Concat | Rows


@dataclass(frozen=True, slots=True)
class Derived:
    """A model that is nowhere stored: each tensor by name, and what it is computed from."""

    derived: dict[str, Made]


@dataclass(frozen=True, slots=True)
class Scales:
    """The scales of all 8-bit tensors of one shape.

    Attributes:
        shape: Of the 8-bit tensors.
        ending: What the scales' name has behind that of their tensor.
        scales: Their own shape: one for each block, row-major.
        block: Sides of a block, one for each axis; the edge may cut the last one off.
    """

    shape: tuple[int, ...]
    ending: str
    scales: tuple[int, ...]
    block: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scaled:
    """A stored model, by number, with its 8-bit tensors times their scales, rounded to `dtype`."""

    scaled: int
    dtype: str
    kinds: tuple[Scales, ...]


@dataclass(frozen=True, slots=True)
class ListedTensor:
    """Where a tensor lies in a file of another format; dtypes are safetensors' names."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A checkpoint of another format than safetensors."""

    path: str
    tensors: dict[str, ListedTensor]


@dataclass(frozen=True, slots=True)
class Files:
    """Safetensors files that are one checkpoint without an index; `path` is their folder."""

    path: str
    files: tuple[str, ...]


# An index or a safetensors file is its path.
Model = str | Files | Listed | Derived | Scaled


def cut_to(models: Sequence[Model], read: Iterable[tuple[int, str]]) -> tuple[Model, ...]:
    """The same models, of which those that list their tensors list only what is needed.

    Args:
        read: Tensors by model's number and name; what they are computed from is needed too.
    """
    needed: list[set[str]] = [set() for _ in models]
    unseen = list(read)
    while unseen:
        number, tensor = unseen.pop()
        if tensor in needed[number]:
            continue
        needed[number].add(tensor)
        match models[number]:
            case Derived(derived):
                unseen += [(other.model, other.tensor) for other in derived[tensor].references]
            case Scaled(scaled, _, kinds):
                # Not each tensor has scales: names that are not there are left out below.
                endings = {"", *(kind.ending for kind in kinds)}
                unseen += [(scaled, tensor + ending) for ending in endings]
    return tuple(map(_cut, models, needed))


def _cut(model: Model, names: set[str]) -> Model:
    match model:
        case Listed(_, tensors):
            return replace(model, tensors={name: tensors[name] for name in names & tensors.keys()})
        case Derived(derived):
            return Derived({name: derived[name] for name in names})
    return model
