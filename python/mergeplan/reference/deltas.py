"""Methods that mix deltas element by element: task arithmetic, TIES, DARE, Breadcrumbs, DELLA."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mergeplan.reference.rounding import Array, Rounding
from mergeplan.reference.sparsify import drop, drop_by_rank, l1_scale, trim, trim_outliers

# Divisors below this are left alone, as in mergekit.
SMALLEST_DIVISOR = 1e-8


@dataclass(frozen=True)
class DeltaOptions:
    """Options of the methods that merge deltas; names as in mergekit's YAML.

    Attributes:
        sparsify: `none`, `magnitude` (TIES), `random` (DARE), `outliers` (Breadcrumbs) or `ranks`
            (DELLA).
        consensus: Elect a sign for each element and keep what agrees with it (TIES).
        gammas: For `outliers`, the share of each expert's largest magnitudes that is dropped.
        epsilons: For `ranks`, how far each expert's probabilities depart from its density.
        stream_ids: For `random` and `ranks`, the stream of each expert; see
            `rust/core/src/number/philox.rs`.
    """

    sparsify: str = "none"
    consensus: bool = False
    normalize: bool = False
    rescale: bool = False
    lambda_: float = 1.0
    gammas: Sequence[float] = ()
    epsilons: Sequence[float] = ()
    seed: int = 0
    stream_ids: Sequence[int] = ()


def merge_deltas(
    base: Array,
    experts: Sequence[Array],
    weights: Sequence[float],
    densities: Sequence[float],
    options: DeltaOptions,
    precision: str = "float64",
) -> Array:
    """base + λ · mix(wᵢ · sparsify(expertᵢ − base)).

    Sources: Ilharco et al. 2022 (task arithmetic), Yadav et al. 2023 (TIES), Yu et al. 2023 (DARE),
    Davari and Belilovsky 2023 (Breadcrumbs), Deep et al. 2024 (DELLA); normalisation, rescaling and
    rounding as in mergekit 0.1.5.
    """
    r = Rounding(precision)
    base = np.asarray(base, np.float64)
    if not experts:
        return base
    factors = r.step(r.register(weights))  # (k,)
    thinned = _all_thin(base, experts, densities, options, precision)
    deltas = [r.step(thin * factor) for thin, factor in zip(thinned, factors, strict=True)]

    if options.consensus:
        sign = np.where(r.over_experts(deltas) >= 0, 1.0, -1.0)
        agrees = [np.sign(delta) == sign for delta in deltas]
    else:
        agrees = [np.ones(base.shape, bool) for _ in deltas]
    agreeing = [np.where(a, d, 0.0) for a, d in zip(agrees, deltas, strict=True)]
    present = [np.where(a, f, 0.0) for a, f in zip(agrees, factors, strict=True)]
    mixed = r.over_experts(agreeing)
    divisor = r.over_experts(present)
    smallest = np.nextafter(0, 1) if options.consensus else SMALLEST_DIVISOR
    if options.normalize:
        mixed = r.step(mixed / np.where(np.abs(divisor) < smallest, 1.0, divisor))
    if options.lambda_ != 1:
        mixed = r.step(mixed * r.register(options.lambda_))
    return r.step(base + mixed)


def slopes(
    base: Array,
    experts: Sequence[Array],
    weights: Sequence[float],
    densities: Sequence[float],
    options: DeltaOptions,
    width: float = 0.0,
) -> list[Array]:
    """How `merge_deltas` moves with each expert's weight, in float64; masks are held.

    Without consensus the weight is that after normalisation, α in base + λ · Σ αᵢdᵢ; with it, it is
    the weight as given. Along λ the slope is what `merge_deltas` adds to the base at λ = 1.

    Args:
        width: Votes that are as small, in shares of Σ |wᵢdᵢ|, count as what changes its sign, as
            `rust/core/src/kernels/slope.rs` says; 0 to hold elected signs as they are.

    Returns:
        For each expert an array of the tensor's shape.
    """
    base = np.asarray(base, np.float64)
    deltas = _all_thin(base, experts, densities, options, "float64")
    if not options.consensus:
        return [options.lambda_ * delta for delta in deltas]
    weighted = [w * delta for w, delta in zip(weights, deltas, strict=True)]
    sign = np.where(np.sum(weighted, axis=0) >= 0, 1.0, -1.0)
    agrees = [np.sign(delta) == sign for delta in weighted]
    # An expert of weight zero has no vote, and a part that begins with more of it.
    own = [
        np.sign(delta) == (-sign if w < 0 else sign)
        for w, delta in zip(weights, deltas, strict=True)
    ]
    sums, divisors = [], []  # of what has the sign, and of what has the other
    for side in (agrees, [np.sign(delta) == -sign for delta in weighted]):
        sums.append(np.sum([np.where(a, d, 0.0) for a, d in zip(side, weighted, strict=True)], 0))
        found = np.sum([np.where(a, w, 0.0) for a, w in zip(side, weights, strict=True)], axis=0)
        divisors.append(found if options.normalize else np.ones(base.shape))
    some = [np.where(divisor == 0, 1.0, divisor) for divisor in divisors]
    mixed, other = (one / divisor for one, divisor in zip(sums, some, strict=True))
    size = np.abs(sums[0]) + np.abs(sums[1])
    near = np.abs(sums[0] + sums[1]) < width * size
    flips = np.where(near, sign * (mixed - other), 0.0)
    flips = flips / np.where(near, 2 * width * size, 1.0)
    if options.normalize:
        moved = [np.where(divisors[0] != 0, (d - mixed) / some[0], 0.0) for d in deltas]
    else:
        moved = deltas
    return [
        options.lambda_ * (np.where(a, m, 0.0) + d * flips)
        for a, m, d in zip(own, moved, deltas, strict=True)
    ]


def _all_thin(
    base: Array,
    experts: Sequence[Array],
    densities: Sequence[float],
    options: DeltaOptions,
    precision: str,
) -> list[Array]:
    step = Rounding(precision).step
    return [
        _thin(step(expert - base), density, number, options, precision)
        for number, (expert, density) in enumerate(zip(experts, densities, strict=True))
    ]


def _thin(
    delta: Array, density: float, number: int, options: DeltaOptions, precision: str
) -> Array:
    if options.sparsify == "none" or density >= 1:
        return delta
    scale_precision = precision
    if options.sparsify == "magnitude":
        thin = trim(delta, density)
    elif options.sparsify == "outliers":
        thin = trim_outliers(delta, density, options.gammas[number])
    else:
        stream_id = options.stream_ids[number]
        if options.sparsify == "random":
            thin = drop(delta, density, options.seed, stream_id, precision)
        else:
            epsilon = options.epsilons[number]
            thin = drop_by_rank(delta, density, epsilon, options.seed, stream_id, precision)
        # mergekit draws masks for float16 in float32, and takes the norms there too.
        scale_precision = "float32" if precision == "float16" else precision
    if not options.rescale or density <= 0:
        return thin
    return Rounding(precision).step(thin * l1_scale(delta, thin, scale_precision))
