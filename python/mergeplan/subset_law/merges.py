"""The measured merges of a law, found by their weights."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.weightings import keys_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Merges:
    """Weights and values of a law's merges.

    Attributes:
        weights: Shape (n, n_experts).
        values: Shape (n,).
        noisy: Which have errors of their own, shape (n,).
        aside: Weights and value of merges that are measured and not fitted.
    """

    weights: Array
    values: Array
    noisy: NDArray[np.bool_]
    aside: tuple[tuple[tuple[float, ...], float], ...]

    @cached_property
    def _known(self) -> tuple[NDArray[np.void], Array]:
        """Keys of the weightings, sorted, and their values; NaN where they have noise."""
        weights = np.array([*self.weights, *(weights for weights, _ in self.aside)])
        own = np.where(self.noisy, np.nan, self.values)
        keys, values = keys_of(weights), np.append(own, [value for _, value in self.aside])
        order = np.argsort(keys)
        return keys[order], values[order]

    def values_of(self, weights: Array) -> Array:
        """What weightings were measured to give, shape (n,); see `SubsetLaw.measured`."""
        keys, values = self._known
        wanted = keys_of(weights)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, values[at], np.nan)

    def has(self, weights: Array) -> bool:
        """Whether a weighting, of shape (n_experts,), is one of these, with noise or without."""
        return bool((keys_of(self.weights) == keys_of(weights[None])).any())

    def same(self, weights: Array, n_rows: int) -> Array:
        """1 where a weighting is that of a merge with noise, else 0.

        Args:
            weights: Shape (n, n_experts).
            n_rows: The merges' values, and whatever comes after them.

        Returns:
            Shape (n, n_rows).
        """
        found = np.zeros((len(weights), n_rows))
        if self.noisy.any():
            equal = keys_of(weights)[:, None] == keys_of(self.weights)
            found[:, : len(self.values)] = equal & self.noisy
        return found

    def put_alone(self, shares: Array, weights: Array) -> None:
        """Make a measured weighting's shares those of its own value, and of nothing else.

        Args:
            shares: Of each value, shape (n, n_merges); changed in place.
            weights: Shape (n, n_experts).
        """
        row = {key: number for number, key in enumerate(keys_of(self.weights).tolist())}
        for place, key in enumerate(keys_of(weights).tolist()):
            if key in row:
                shares[place] = 0.0
                shares[place, row[key]] = 1.0
