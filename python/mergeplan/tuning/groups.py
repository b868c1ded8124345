"""Which tensors of a merge share a weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.checkpoints.layers import layer_of
from mergeplan.pool.geometry.compare import module_kind

Array = NDArray[np.float64]

EXPERT, LAYER, KIND, LAYER_KIND = BY = ("expert", "layer", "kind", "layer,kind")
_WHOLE = "all"


@dataclass(frozen=True)
class Groups:
    """Tensors, and the group that each is of.

    Attributes:
        by: One of `BY`.
        names: Of the groups: `layer 3`, `attention`, `layer 3 attention`, or `all`. With layers,
            what lies outside them goes by its kind.
        of: The group of each tensor.
        parts: Of each group its layer and its kind, empty where it has none.
    """

    by: str
    names: tuple[str, ...]
    of: dict[str, int]
    parts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def find(cls, tensors: Sequence[str], by: str) -> "Groups":
        """Groups of some tensors: layers in their order, what is outside them behind."""
        keys = {tensor: _key(tensor, by) for tensor in tensors}
        # By stack and number, so that layer 10 is behind layer 9.
        order = sorted(set(keys.values()), key=lambda key: (key[0] is None, key))
        places = {key: place for place, key in enumerate(order)}
        several = len({key[0][0] for key in order if key[0] is not None}) > 1
        parts = tuple((_layer(key, several), key[1]) for key in order)
        names = tuple(" ".join(filter(None, part)) for part in parts)
        return cls(by, names, {tensor: places[key] for tensor, key in keys.items()}, parts)

    def __len__(self) -> int:
        return len(self.names)

    def sums(self, tensors: Sequence[str], values: Array) -> Array:
        """Values of tensors, shape (n_tensors, ...), summed by group, (n_groups, ...)."""
        found = np.zeros((len(self), *values.shape[1:]))
        np.add.at(found, [self.of[tensor] for tensor in tensors], values)
        return found


_Key = tuple[tuple[str, int] | None, str]


def _key(tensor: str, by: str) -> _Key:
    place = layer_of(tensor)
    if by == EXPERT:
        return None, _WHOLE
    if by == KIND or place is None:
        return None, module_kind(tensor)
    return place, "" if by == LAYER else module_kind(tensor)


def _layer(key: _Key, several: bool) -> str:
    place = key[0]
    if place is None:
        return ""
    return f"{place[0] if several else ''}layer {place[1]}"
