"""Checkpoints that are stored nowhere: how their tensors are computed from those of others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mergeplan.checkpoints.dtypes import SCALED
from mergeplan.checkpoints.plan_models import (
    Cast,
    Derived,
    Lora,
    Made,
    Same,
    Scaled,
    Scales,
    TensorRef,
)

if TYPE_CHECKING:
    from mergeplan.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of another checkpoint."""

    checkpoint: "Checkpoint"
    tensor: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a tensor that is stored nowhere is computed; see `rust/core/src/plan/models.rs`.

    Attributes:
        kind: `same` and `cast` of one tensor; `lora` of x, A and B; `dequantised` of an 8-bit
            tensor and its scales.
        dtype: Torch name of what the result is rounded to; `None` for `same`.
    """

    kind: str
    parts: tuple[Part, ...]
    scale: float = 1.0
    dtype: str | None = None
    transposed: bool = False

    def planned(self, numbers: Mapping[int, int]) -> Made:
        """As the plan has it.

        Args:
            numbers: Of the plan's models, by the `id` of the parts' checkpoints: hashing the keys
                of half a million parts takes longer than all the rest of planning.
        """
        x, *factors = (TensorRef(numbers[id(p.checkpoint)], p.tensor) for p in self.parts)
        if self.dtype is None:
            return Same(x.model, x.tensor)
        if not factors:
            return Cast(x.model, x.tensor, self.dtype)
        a, b = factors
        return Lora(x.model, x.tensor, a, b, self.scale, self.dtype, self.transposed)


class Computed(dict[str, Derivation]):
    """How each tensor of a checkpoint is computed; empty for one that is stored."""

    @cached_property
    def checkpoints(self) -> list["Checkpoint"]:
        """Those of all parts, each once; several may be one by `key`."""
        parts = (part.checkpoint for how in self.values() for part in how.parts)
        return list({id(one): one for one in parts}.values())

    @cached_property
    def changes_values(self) -> bool:
        """Whether some tensor is another than any stored one, as by an adapter."""
        return any(how.kind != "same" for how in self.values())

    def planned(self, numbers: Mapping[int, int]) -> Derived:
        """As the plan has it; `numbers` as for `Derivation.planned`."""
        return Derived({name: how.planned(numbers) for name, how in self.items()})


@dataclass(frozen=True)
class Dequantised(Mapping[str, Derivation]):
    """The tensors of a checkpoint with its 8-bit ones times their scales, each told when asked for.

    Attributes:
        stored: Where all of them lie.
        tensors: Their names.
        dtype: Torch name of what the products are rounded to.
        kinds: The shapes that there are.
    """

    stored: "Checkpoint"
    tensors: Mapping[str, object]
    dtype: str
    kinds: tuple[Scales, ...]
    changes_values = False

    def __getitem__(self, name: str) -> Derivation:
        part, stored = Part(self.stored, name), self.stored.tensors
        if name not in self.tensors:
            raise KeyError(name)
        if stored[name].dtype not in SCALED:
            return Derivation("same", (part,))
        endings = {kind.ending for kind in self.kinds}
        scales = next(name + ending for ending in endings if name + ending in stored)
        return Derivation("dequantised", (part, Part(self.stored, scales)), dtype=self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def checkpoints(self) -> list["Checkpoint"]:
        return [self.stored]

    def planned(self, numbers: Mapping[int, int]) -> Scaled:
        return Scaled(numbers[id(self.stored)], self.dtype, self.kinds)
