"""DELLA's limits by rank; see `rust/core/src/statistics/ranks.rs`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mergeplan.merging.torch import philox
from mergeplan.merging.torch.arithmetic import Steps, float32
from mergeplan.merging.torch.host import sent

# Device bytes for each element of each expert: sorted rows with their places in int64, which the
# sort holds twice, both ends of a run of ties, and sums of limits.
BYTES = 2 * (4 + 8) + 2 * 8 + 3 * 8


class RankLimits:
    """Limits on random words, by the rank of a magnitude in its row; ties share their mean.

    Args:
        steps: In whose dtype probabilities are computed.
        columns: Elements of a row.
        stride: How far apart they stand.
        spreads: Density and epsilon of each expert.
    """

    def __init__(
        self,
        steps: Steps,
        columns: int,
        stride: int,
        spreads: Sequence[tuple[float, float]],
        device: torch.device,
    ) -> None:
        chances = torch.stack([_probabilities(steps, columns, *spread) for spread in spreads])
        limits = (chances.double() * 2.0**32 + 0.5).floor().long()
        # Sum of the limits of all ranks below: shape (k, columns + 1).
        self._below = sent(torch.nn.functional.pad(limits.cumsum(1), (1, 0)), device)
        self._columns, self._stride = columns, stride

    def of(self, bits: Tensor) -> Tensor:
        """The limits of whole rows, by their magnitudes. int64, of the same shape (k, numel)."""
        k = len(bits)
        rows = bits.view(k, -1, self._columns, self._stride).transpose(2, 3)
        rows = rows.reshape(k, -1, self._columns)
        ordered = rows.sort(dim=-1).values
        first = torch.searchsorted(ordered, rows)
        last = torch.searchsorted(ordered, rows, right=True)
        del ordered, rows
        limits = self._sum_below(last).sub_(self._sum_below(first))
        limits = limits.div_(last.sub_(first), rounding_mode="floor").clamp_(max=philox.MOST)
        lanes = limits.view(k, -1, self._stride, self._columns).transpose(2, 3)
        return lanes.reshape(k, -1)

    def _sum_below(self, ranks: Tensor) -> Tensor:
        below = self._below.unsqueeze(1).expand(-1, ranks.shape[1], -1)
        return below.gather(2, ranks)


def _probabilities(steps: Steps, columns: int, density: float, epsilon: float) -> Tensor:
    """From the smallest magnitude of a row to its largest, each step rounded. Shape (columns,)."""
    if columns == 1:
        return torch.tensor([steps.number(density)], dtype=torch.float32)
    low = steps.number(density - epsilon)
    ranks = steps.add(steps.cast(torch.arange(columns).float()), torch.ones(1, dtype=torch.float32))
    less = steps.subtract(ranks, torch.ones_like(ranks))
    share = steps.divide(less, less[-1].tolist()).clamp(0.0, 1.0)
    slope = steps.scale(steps.scale(share, 2.0), float32(epsilon))
    return steps.add(slope, torch.tensor([low], dtype=torch.float32)).float().clamp(0.0, 1.0)
