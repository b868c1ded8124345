"""What a method of the user's own is given of a tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """A run of one tensor's elements in every model; what is not the method's own is read-only.

    A method by elements gets vectors: shape (n,), and (k, n) where it says `(k, ...)`. One by rows
    gets whole rows along the last dimension: (rows, columns) and (k, rows, columns).

    Attributes:
        models: The k models' values, in the config's order, in float32. Shape (k, ...).
        base: The base's values; `None` where the merge has no base. Shape (...).
        options: Of the whole merge, by name.
        model_options: Each model's, by name, in float32, in a shape that broadcasts with `models`.
        statistics: Each model's, by name, in float64, in the same shape: of the whole tensor's
            delta, or of its values where there is no base.
        states: Each model's, as the method's `State` has made it of the whole tensor.
        tensor: The tensor's name.
        shape: The whole tensor's.
        start: The number of its first element here.
    """

    models: NDArray[np.float32]
    base: NDArray[np.float32] | None = None
    options: Mapping[str, float | int | bool] = field(default_factory=dict)
    model_options: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    states: Sequence[Any] = ()
    tensor: str = ""
    shape: tuple[int, ...] = ()
    start: int = 0

    @cached_property
    def deltas(self) -> NDArray[np.float32]:
        """What each model adds to the base. Shape (k, ...).

        Raises:
            ValueError: The merge has no base.
        """
        if self.base is None:
            raise ValueError("the merge has no base, and so no deltas")
        return self.models - self.base
