"""What is to be chosen: the value to make small, and what has to hold."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.subset_law.law import SubsetLaw

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Constraint:
    """A bound on one domain's or metric's value.

    Attributes:
        below: Whether values have to be at most the limit, else at least.
    """

    name: str
    limit: float
    below: bool = True

    def __str__(self) -> str:
        return f"{self.name}{'<=' if self.below else '>='}{self.limit:g}"


def parse_constraint(text: str) -> Constraint:
    """`code<=1.10` or `gsm8k>=0.5`.

    Raises:
        InputError: It reads otherwise.

    >>> str(parse_constraint("code <= 1.10"))
    'code<=1.1'
    """
    match = re.fullmatch(r"\s*(.+?)\s*(<=|>=)\s*([-+0-9.eE]+)\s*", text)
    try:
        limit = float(match[3]) if match else np.nan
    except ValueError:
        limit = np.nan
    if match is None or not np.isfinite(limit):
        raise InputError(f"cannot read the constraint `{text}`", "write code<=1.10")
    return Constraint(match[1], limit, match[2] == "<=")


@dataclass(frozen=True, eq=False)
class Problem:
    """A law to minimise (to maximise where higher is better) within bounds on others.

    A measurement has no misfit, and stands in for the prediction of the same merge.

    Attributes:
        max_experts: Most that may be merged; `None` for all.
    """

    law: SubsetLaw
    bounds: tuple[tuple[Constraint, SubsetLaw], ...] = ()
    max_experts: int | None = None

    @property
    def n_experts(self) -> int:
        return len(self.law.experts)

    @property
    def largest_k(self) -> int:
        return min(self.max_experts or self.n_experts, self.n_experts)

    @cached_property
    def sign(self) -> float:
        return -1.0 if self.law.higher else 1.0

    def costs(self, weights: Array, *, known: bool = True) -> Array:
        """Values to minimise, shape (n,).

        Args:
            weights: Shape (n, n_experts).
            known: Whether measured subsets have their measured values, not the predicted ones.
        """
        return self.sign * values_of(self.law, weights, known=known)

    def excess(self, weights: Array, *, known: bool = True) -> Array:
        """By how much the bounds are broken, summed; 0 where all hold. Shape (n,)."""
        total = np.zeros(len(weights))
        for constraint, law in self.bounds:
            values = values_of(law, weights, known=known)
            over = values - constraint.limit if constraint.below else constraint.limit - values
            total += np.maximum(over, 0)
        return total


def values_of(law: SubsetLaw, weights: Array, *, known: bool = True) -> Array:
    """Predicted values, and measured ones where they are known, shape (n,)."""
    predicted = law.predict(weights)
    if not known:
        return predicted
    measured = law.measured(weights)
    return np.where(np.isnan(measured), predicted, measured)


def equal_weights(members: Sequence[NDArray[np.bool_]] | NDArray[np.bool_]) -> Array:
    """1/k on each member.

    Args:
        members: Shape (n, n_experts), each row with a member or more.
    """
    chosen = np.asarray(members, np.float64)
    weights: Array = chosen / chosen.sum(1, keepdims=True)
    return weights
