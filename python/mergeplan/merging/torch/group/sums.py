"""Sums over a whole tensor, in float64."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mergeplan.merging.torch.sweeps import InputSweep, LeaveToCoreError, Piece

# Device bytes for each element while `squares` or `exact_products` adds them.
BYTES = 2 * 8


def squares(values: Tensor) -> Tensor:
    """Of a piece. Shape ()."""
    return values.double().square_().sum()


def exact_products(values: Tensor, others: Tensor) -> Tensor:
    """Of two pieces, not rounded. Shape ()."""
    return values.double().mul_(others).sum()


def rounded_products(values: Tensor, others: Tensor) -> Tensor:
    """Of two rounded pieces, each product rounded to their dtype. Shape ()."""
    return (values * others).sum(dtype=torch.float64)


def totals(sweep: InputSweep, terms: Callable[[Piece], Iterator[Tensor]]) -> list[float]:
    """Sums over the tensor, on the host.

    Args:
        terms: Gives a piece's part of each, of shape ().

    Raises:
        LeaveToCoreError: An input or a sum is not finite.
    """
    sums = torch.zeros((), dtype=torch.float64, device=sweep.device)
    for piece in sweep:
        sums = sums + torch.stack(list(terms(piece))).double()
    found = sweep.numbers(sums)
    if not all(map(math.isfinite, found)):
        raise LeaveToCoreError
    return found
