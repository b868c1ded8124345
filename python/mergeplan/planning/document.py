"""The plan as data: what `rust/core/src/plan` reads, field for field, and its one way to JSON.

A field whose name ends in `_` would be a word of Python; in the plan it has none.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import prod
from operator import attrgetter
from typing import Any, ClassVar

from mergeplan.checkpoints.dtypes import bits_of
from mergeplan.checkpoints.plan_models import Model, TensorRef
from mergeplan.planning.group_methods import GroupMethod
from mergeplan.system.memory import collection_paused

VERSION = 1


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a merge with its options; `None` where the method has no such option."""

    leaves_out_none: ClassVar = True

    model: int
    tensor: str
    weight: float
    density: float | None = None
    gamma: float | None = None
    epsilon: float | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The place is reserved, and whoever runs the plan writes the tensor afterwards."""

    kind: ClassVar = "given"

    @property
    def references(self) -> tuple[TensorRef | Input, ...]:
        """Every tensor that is read, the base first."""
        return ()


@dataclass(frozen=True, slots=True)
class Copy:
    """The same bytes from every input."""

    kind: ClassVar = "copy"

    inputs: tuple[TensorRef, ...]

    @property
    def references(self) -> tuple[TensorRef | Input, ...]:
        return self.inputs


@dataclass(frozen=True, slots=True)
class Linear:
    """A weighted sum of whole tensors."""

    kind: ClassVar = "linear"

    dtype: str
    normalize: bool
    inputs: tuple[Input, ...]

    @property
    def references(self) -> tuple[TensorRef | Input, ...]:
        return self.inputs


@dataclass(frozen=True, slots=True)
class Delta:
    """base + lambda · mix(weight · sparsify(expert − base))."""

    kind: ClassVar = "delta"

    dtype: str
    base: TensorRef
    sparsify: str
    consensus: bool
    rescale: bool
    normalize: bool
    lambda_: float
    inputs: tuple[Input, ...]

    @property
    def references(self) -> tuple[TensorRef | Input, ...]:
        return (self.base, *self.inputs)


@dataclass(frozen=True, slots=True)
class Slope(Delta):
    """How a `Delta` moves with the weight of one of its inputs, in place of the merge.

    Masks and elected signs are held as they are. Without consensus the weight is the one after
    normalisation, so that the slope is lambda · sparsify(expert − base) whatever the weights are;
    with consensus it is the weight as it is written.

    Attributes:
        slope: The input's place.
    """

    slope: int

    @classmethod
    def of(cls, merge: Delta, place: int) -> "Slope":
        """Along an input of a merge; inputs that it does not depend on are left out."""
        inputs, along = merge.inputs, place
        if not merge.consensus:
            inputs, along = inputs[place : place + 1], 0
        own = {one.name: getattr(merge, one.name) for one in fields(Delta)}
        return cls(**own | {"inputs": inputs}, slope=along)


@dataclass(frozen=True, slots=True)
class Mixed(Delta):
    """The mixed delta without base and lambda, in place of the merge: its slope along lambda."""

    mixed: bool

    @classmethod
    def of(cls, merge: Delta) -> "Mixed":
        """Of a merge."""
        return cls(**{one.name: getattr(merge, one.name) for one in fields(Delta)}, mixed=True)


@dataclass(frozen=True, slots=True)
class Group:
    """A method that looks at whole vectors of the inputs."""

    kind: ClassVar = "group"

    dtype: str
    method: GroupMethod
    base: TensorRef | None
    inputs: tuple[TensorRef, ...]

    @property
    def references(self) -> tuple[TensorRef | Input, ...]:
        return self.inputs if self.base is None else (self.base, *self.inputs)


@dataclass(frozen=True, slots=True)
class Wide:
    """A weighted sum of whole tensors, or with a base of deltas, in float64."""

    kind: ClassVar = "wide"

    base: TensorRef | None
    normalize: bool
    lambda_: float
    inputs: tuple[Input, ...]

    @property
    def references(self) -> tuple[TensorRef | Input, ...]:
        return self.inputs if self.base is None else (self.base, *self.inputs)


Merge = Given | Copy | Linear | Delta | Group | Wide


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a job's tensor, under its own name in the output file."""

    tensor: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """How one output tensor is made.

    Attributes:
        tensor: Its name.
        shape: Its own, and that of every input.
        out_dtype: safetensors' name.
        parts: What the files call its pieces, one behind the other, where they do not hold it as a
            whole; `None` for all others.
    """

    leaves_out_none: ClassVar = True

    tensor: str
    shape: tuple[int, ...]
    out_dtype: str
    merge: Merge
    parts: tuple[Part, ...] | None = None

    @property
    def stored(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor that the output gets, by name."""
        if self.parts is None:
            return {self.tensor: self.shape}
        return {part.tensor: part.shape for part in self.parts}

    @property
    def n_elements(self) -> int:
        return prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_elements * bits_of(self.out_dtype) // 8


@dataclass(frozen=True, slots=True)
class Plan:
    """One merge: its models, a job for each output tensor, and the seed.

    Attributes:
        allow_nonfinite: Merge NaN and infinity instead of refusing them.
        max_shard_bytes: A new shard begins where the tensors of one would take more.
        models: What jobs refer to by number.
        jobs: In the order in which they are packed into shards.
        stem: How the names of the output's files begin.
    """

    seed: int
    allow_nonfinite: bool
    max_shard_bytes: int
    models: tuple[Model, ...]
    jobs: tuple[Job, ...]
    stem: str = "model"
    version: int = VERSION

    def json(self) -> str:
        """Canonical text: the same plan gives the same bytes."""
        return to_json(self, sort_keys=True, separators=(",", ":"))

    def sha256(self) -> str:
        """Of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.json().encode()).hexdigest()


@collection_paused()
def to_json(value: object, **how: Any) -> str:
    """JSON of plans and of what holds them.

    Args:
        how: As for `json.dumps`.
    """
    return json.dumps(value, default=_as_mapping, **how)


def _as_mapping(value: object) -> dict[str, Any]:
    return _SHAPES[type(value)](value)


def _shape_of(kind: type) -> Callable[[Any], dict[str, Any]]:
    """What turns an object into the mapping that stands for it in the plan.

    Called for each reference of each tensor, half a million times for a large model.
    """
    own = [field.name for field in fields(kind)]
    names = tuple(name.removesuffix("_") for name in own)
    marks = {key: getattr(kind, key, None) for key in ("kind", "name")}
    tag = {key: mark for key, mark in marks.items() if isinstance(mark, str)}
    if not own:
        return lambda _: dict(tag)
    if len(own) == 1:
        return lambda value: {names[0]: getattr(value, own[0]), **tag}
    values = attrgetter(*own)
    if tag:
        return lambda value: dict(zip(names, values(value), strict=True), **tag)
    if getattr(kind, "leaves_out_none", False):
        return lambda value: {
            name: entry
            for name, entry in zip(names, values(value), strict=True)
            if entry is not None
        }
    return lambda value: dict(zip(names, values(value), strict=True))


class _Shapes(dict[type, Callable[[Any], dict[str, Any]]]):
    """Made for each dataclass when the first of its kind is met."""

    def __missing__(self, kind: type) -> Callable[[Any], dict[str, Any]]:
        self[kind] = shape = _shape_of(kind)
        return shape


_SHAPES = _Shapes()
