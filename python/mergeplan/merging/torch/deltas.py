"""Task arithmetic, TIES, DARE, Breadcrumbs and DELLA; see `rust/core/src/execute/delta`.

All experts of a piece are thinned at once, as rows of one tensor: what a GPU is told to do then
takes the time of doing it, not of telling it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mergeplan.merging.torch import largest, philox, ranks
from mergeplan.merging.torch.arithmetic import Steps, float32, l1_norm, magnitudes
from mergeplan.merging.torch.host import sent
from mergeplan.merging.torch.largest import Largest, LargestQuery
from mergeplan.merging.torch.loading import DTYPES
from mergeplan.merging.torch.program import StreamOf
from mergeplan.merging.torch.sweeps import InputSweep, Piece
from mergeplan.planning.document import Delta, Job

# As in mergekit: smaller divisors count as one, and norms below are left alone.
_SMALLEST_DIVISOR = 1e-8
_SMALLEST_NORM = 1e-7


@dataclass(frozen=True)
class _Expert:
    """An input that takes part, with its options as the plan has them."""

    weight: float
    density: float
    gamma: float
    epsilon: float


# Which elements of a piece are kept, by its start and its deltas; in order from the first piece on.
# Both have shape (k, numel).
_Keep = Callable[[int, Tensor], Tensor]


class Deltas:
    """base + lambda · mix(weight · thin(expert − base))."""

    def __init__(self, job: Job, merge: Delta, stream_of: StreamOf, seed: int) -> None:
        self.working = DTYPES[merge.dtype]
        self._steps = steps = Steps(self.working)
        self._merge, self._stream_of, self._seed = merge, stream_of, seed
        # A weight of zero changes neither sum nor divisor: such an expert is not read.
        used = [(i, one) for i, one in enumerate(merge.inputs, start=1) if one.weight != 0.0]
        self.inputs = [0, *(number for number, _ in used)]
        self._experts = [
            _Expert(
                steps.number(one.weight),
                1.0 if one.density is None else one.density,
                one.gamma or 0.0,
                one.epsilon or 0.0,
            )
            for _, one in used
        ]
        self._length = job.n_elements
        self._columns, self._stride = _rows_of(job.shape)
        self._ranked = merge.sparsify == "ranks"
        self._random = self._ranked or merge.sparsify == "random"
        self._thins = [_thins(merge.sparsify, expert) for expert in self._experts]
        thins = any(self._thins)
        self.align = self._columns * self._stride if self._ranked and thins else 1
        self._lambda = float32(merge.lambda_)
        self.sweeps = 2 if thins and (merge.rescale or not self._random) else 1
        self.element_bytes = self._count_bytes()
        self.fixed_bytes = self._count_fixed_bytes() if thins else 0

    def _count_fixed_bytes(self) -> int:
        k = len(self._experts)
        if self._ranked:
            return k * 8 * (self._columns + 1)
        if self._random:
            return 0
        # Outliers lie between two ranks.
        return largest.table_bytes(k, 2 * k, self.working == torch.float32)

    def _count_bytes(self) -> int:
        k = len(self._experts)
        size: int = self.working.itemsize
        # Of each expert the delta, what thins it, and masks of a vote.
        thinning = largest.device_bytes(size)
        if self._random:
            thinning = philox.BYTES + (ranks.BYTES if self._ranked else 0)
        each = size + max(4, thinning if any(self._thins) else 0)
        # An expert before its delta; sums, divisor and steps in float32 and float64; or counting:
        # upper and lower halves in int32, a mask, bins and ones in int64.
        return k * each + max(2 * size + 4 * 4 + 8, 2 * 4 + 1 + 2 * 8)

    def run(self, sweep: InputSweep) -> Iterator[tuple[int, Tensor]]:
        if not self._experts:
            for piece in sweep:
                yield piece.start, piece[0]
            return
        make = self._keeps(sweep)
        scales, make = self._scales(sweep, make)
        keep = make()
        for piece in sweep:
            yield piece.start, self._merge_piece(piece, keep, scales)

    def _merge_piece(self, piece: Piece, keep: _Keep, scales: Sequence[float]) -> Tensor:
        deltas = self._deltas(piece)
        if any(self._thins) or not all(map(self._keeps_all, self._experts)):
            deltas.masked_fill_(keep(piece.start, deltas).logical_not_(), 0.0)
        return self._mix(piece, self._weighted(deltas, scales))

    def _deltas(self, piece: Piece) -> Tensor:
        """Of all experts. Shape (k, numel)."""
        base = piece[0]
        deltas = torch.empty((len(self._experts), len(base)), dtype=base.dtype, device=base.device)
        for number, delta in enumerate(deltas, start=1):
            torch.sub(piece[number], base, out=delta)
        return deltas

    # What each expert keeps.

    def _keeps_all(self, expert: _Expert) -> bool:
        return self._merge.sparsify == "none" or expert.density >= 1.0

    def _keeps(self, sweep: InputSweep) -> Callable[[], _Keep]:
        """Makes what says it, anew for each sweep: ties are counted from the tensor's start on."""
        if not any(self._thins):
            return lambda: self._whole
        if self._random:
            keep = self._random_masks(sweep)
            return lambda: keep
        return self._trims(sweep)

    def _whole(self, _start: int, deltas: Tensor) -> Tensor:
        """Where nothing is thinned, an expert keeps everything or nothing."""
        return self._fix(torch.empty_like(deltas, dtype=torch.bool))

    def _fix(self, kept: Tensor) -> Tensor:
        """Set the rows of experts that are not thinned."""
        for row, expert, thins in zip(kept, self._experts, self._thins, strict=True):
            if not thins:
                row.fill_(self._keeps_all(expert))
        return kept

    def _trims(self, sweep: InputSweep) -> Callable[[], _Keep]:
        limits = [self._ranks(expert) for expert in self._experts]
        wanted = [
            LargestQuery(stream, rank)
            for stream, (ranks, thins) in enumerate(zip(limits, self._thins, strict=True))
            for rank in ranks
            if thins and rank > 0 and ranks[0] < ranks[1]
        ]

        def streams(piece: Piece) -> Tensor:
            return magnitudes(self._deltas(piece))

        has_low_bits = self.working == torch.float32
        found = largest.thresholds(sweep, streams, len(limits), wanted, has_low_bits)
        known = dict(zip(wanted, found, strict=True))
        least = [known.get(LargestQuery(i, ranks[1])) for i, ranks in enumerate(limits)]
        dropped = [known.get(LargestQuery(i, ranks[0])) for i, ranks in enumerate(limits)]

        def make() -> _Keep:
            kept = Largest(least, sweep.device)
            top = Largest(dropped, sweep.device) if any(dropped) else None

            def keep(_start: int, deltas: Tensor) -> Tensor:
                bits = magnitudes(deltas)
                chosen = kept.of(bits)
                if top is not None:
                    chosen &= top.of(bits).logical_not_()
                return self._fix(chosen)

            return keep

        return make

    def _ranks(self, expert: _Expert) -> tuple[int, int]:
        """How many of the largest are dropped, and how many are there down to the least kept."""
        kept = int(expert.density * self._length)
        if self._merge.sparsify != "outliers":
            return 0, max(kept, 1)
        bottom = max(0, self._length - kept - int(expert.gamma * self._length))
        dropped = self._length - bottom - kept
        return dropped, dropped + kept

    def _random_masks(self, sweep: InputSweep) -> _Keep:
        numbers = zip(self.inputs[1:], self._thins, strict=True)
        ids = [self._stream_of(number) if thins else 0 for number, thins in numbers]
        counters = philox.Counters.of(self._seed, ids, sweep.device)
        draw, fault = philox.find_draw(sweep.device)
        if fault:
            sweep.note(fault)
        # mergekit draws from probabilities in bfloat16 for bfloat16 deltas, else in float32.
        steps = self._steps if self.working == torch.bfloat16 else Steps(torch.float32)
        if self._ranked:
            pairs = zip(self._experts, self._thins, strict=True)
            spreads = [(e.density, e.epsilon) if thins else (0.5, 0.0) for e, thins in pairs]
            by_rank = ranks.RankLimits(steps, self._columns, self._stride, spreads, sweep.device)
            return lambda start, deltas: self._fix(
                draw(counters, start, deltas.shape[1], by_rank.of(magnitudes(deltas)), True)
            )
        chances = [philox.limit(steps.number(expert.density)) for expert in self._experts]
        limits = sent(torch.tensor(chances).unsqueeze(1), sweep.device)  # (k, 1)
        has_low_bits = any(one & 0xFFFF for one in chances)
        return lambda start, deltas: self._fix(
            draw(counters, start, deltas.shape[1], limits, has_low_bits)
        )

    # Factors that give what is kept the norm of the whole.

    def _scales(
        self, sweep: InputSweep, make: Callable[[], _Keep]
    ) -> tuple[list[float], Callable[[], _Keep]]:
        """One for each expert, and what says from now on what is kept."""
        if not (self._merge.rescale and any(self._thins)):
            return [1.0] * len(self._experts), make
        norms = torch.zeros((len(self._experts), 2), dtype=torch.float64, device=sweep.device)
        keep = make()
        masks: dict[int, Tensor] = {}

        def add(piece: Piece) -> None:
            deltas = self._deltas(piece)
            kept = keep(piece.start, deltas)
            # A random mask takes much longer to make than to read again.
            if self._random and sweep.reserve(kept.numel()):
                masks[piece.start] = kept.clone()
            for own, delta in zip(norms, deltas, strict=True):
                own[0] += l1_norm(delta)
            deltas.masked_fill_(kept.logical_not_(), 0.0)
            for own, delta in zip(norms, deltas, strict=True):
                own[1] += l1_norm(delta)

        for piece in sweep:
            add(piece)
        found = sweep.numbers(norms)
        ratios = [self._ratio(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        scales = [r if thins else 1.0 for r, thins in zip(ratios, self._thins, strict=True)]
        if not masks:
            return scales, make
        return (
            scales,
            lambda: (
                lambda start, deltas: masks.pop(start) if start in masks else keep(start, deltas)
            ),
        )

    def _ratio(self, before: float, after: float) -> float:
        if before < _SMALLEST_NORM or after < _SMALLEST_NORM:
            return 1.0
        in_float32 = self.working == torch.float16 and self._random
        steps = Steps(torch.float32) if in_float32 else self._steps
        divisor = steps.number(after)
        rounded = steps.number(steps.number(before) / divisor) if divisor else 0.0
        # A float16 sum overflows at 65,504; there mergekit gets NaN, and we the factor it meant.
        return rounded if 0.0 < rounded < float("inf") else float32(before / after)

    # The mix.

    def _weighted(self, deltas: Tensor, scales: Sequence[float]) -> Tensor:
        for factors in (scales, [expert.weight for expert in self._experts]):
            if any(factor != 1.0 for factor in factors):
                for delta, factor in zip(deltas, factors, strict=True):
                    if factor != 1.0:
                        delta.copy_(delta.float().mul_(factor))
        return deltas

    def _mix(self, piece: Piece, deltas: Tensor) -> Tensor:
        steps, base = self._steps, piece[0]
        if self._merge.consensus:
            mixed = self._elected(deltas, base)
        else:
            mixed = steps.cast(steps.sum(deltas, base))
            divisor = steps.number(steps.number_sum([one.weight for one in self._experts]))
            if self._merge.normalize and abs(divisor) >= float32(_SMALLEST_DIVISOR):
                mixed = steps.divide(mixed, divisor)
        return steps.add(base, steps.scale(mixed, self._lambda))

    def _elected(self, deltas: Tensor, base: Tensor) -> Tensor:
        """Of the deltas whose sign is that of the sum; a sum of zero votes for plus."""
        steps = self._steps
        plus = steps.cast(steps.sum(deltas, base)) >= 0
        # A delta of zero agrees with nobody.
        agrees = torch.where(plus, deltas > 0, deltas < 0)
        mixed = steps.cast(steps.sum(deltas.masked_fill_(~agrees, 0.0), base))
        if not self._merge.normalize:
            return mixed
        divisor = torch.zeros_like(base, dtype=torch.float32)
        for row, expert in zip(agrees, self._experts, strict=True):
            divisor.add_(row.float().mul_(expert.weight))
        rounded = steps.cast(divisor)
        return steps.divide(mixed, rounded.masked_fill_(rounded == 0, 1.0))


def _thins(sparsify: str, expert: _Expert) -> bool:
    """Whether some elements are dropped, and some kept."""
    return sparsify != "none" and 0.0 < expert.density < 1.0


def _rows_of(shape: Sequence[int]) -> tuple[int, int]:
    """The rows in which ranks are taken: their elements, and how far apart these stand."""
    if len(shape) < 2:
        return prod(shape), 1
    return shape[1], prod(shape[2:])
