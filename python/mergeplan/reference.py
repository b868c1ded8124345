"""Every merge method in readable numpy: slow, complete, and the oracle of everything fast.

All arithmetic is float64. `precision` says to which dtype each step's result is rounded:
`float64` rounds nothing and gives the mathematics; the others give what torch on a CPU, and so
mergekit 0.1.5, computes for tensors of that dtype, sums over experts in float32.

| symbol | meaning | shape |
|---|---|---|
| base | tensor of the common base | (...) |
| experts | tensors of the fine-tuned models | k × (...) |
| delta | expert − base | (...) |
| weights | factor of each expert | (k,) |
| densities | share of each delta that is kept | (k,) |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan import rng

Array = NDArray[np.float64]
Rounder = Callable[[Array], Array]

# Divisors and norms below these are left alone, as in mergekit.
SMALLEST_DIVISOR = 1e-8
SMALLEST_NORM = 1e-7


def _bfloat16(values: Array) -> Array:
    bits = np.asarray(values, np.float32).view(np.uint32)
    up = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isnan(values), np.nan, rounded).astype(np.float64)


ROUNDERS: dict[str, Rounder] = {
    "float64": lambda values: values,
    "float32": lambda values: np.asarray(values, np.float32).astype(np.float64),
    "float16": lambda values: np.asarray(values, np.float32).astype(np.float16).astype(np.float64),
    "bfloat16": _bfloat16,
}


def round_to(values: object, precision: str) -> Array:
    """Values rounded to nearest, ties to even. Shape as given."""
    return ROUNDERS[precision](np.asarray(values, np.float64))


def linear(
    tensors: Sequence[Array],
    weights: Sequence[float],
    *,
    normalize: bool = True,
    precision: str = "float64",
) -> Array:
    """Σ wᵢxᵢ, divided by Σ wᵢ if `normalize`. (mergekit's `linear`: float32 sums, one rounding)"""
    inner = ROUNDERS["float64" if precision == "float64" else "float32"]
    factors = inner(np.asarray(weights, np.float64))  # (k,)
    total = np.zeros_like(np.asarray(tensors[0], np.float64))
    for tensor, factor in zip(tensors, factors, strict=True):
        total = inner(total + factor * tensor)  # one rounding: a fused multiply-add
    if normalize:
        total = inner(total / _sum_over_experts(list(factors), inner))
    return round_to(total, precision)


def trim(delta: Array, density: float) -> Array:
    """Keep the `int(density · n)` largest magnitudes, at least one; ties by index. (TIES)"""
    if density >= 1:
        return delta
    if density <= 0 or delta.size == 0:
        return np.zeros_like(delta)
    n_kept = max(1, int(density * delta.size))
    order = np.argsort(-np.abs(delta).reshape(-1), kind="stable")  # (numel,)
    mask = np.zeros(delta.size, bool)
    mask[order[:n_kept]] = True
    return np.where(mask.reshape(delta.shape), delta, 0.0)


def drop(delta: Array, density: float, seed: int, stream_id: int, precision: str) -> Array:
    """Keep each element with probability `density`. (DARE; `density` is one minus its drop rate)

    mergekit draws from a bfloat16 tensor of probabilities for bfloat16 deltas, so there the density
    itself is rounded.
    """
    if density >= 1:
        return delta
    density_dtype = {"bfloat16": "bfloat16", "float64": "float64"}.get(precision, "float32")
    limit = np.round(round_to(density, density_dtype) * 2.0**32)
    words = rng.words(seed, stream_id, delta.size).astype(np.float64)  # (numel,), exact
    return np.where((words < limit).reshape(delta.shape), delta, 0.0)


def l1_scale(before: Array, after: Array, precision: str) -> float:
    """The factor that gives `after` the L1 norm of `before`. (mergekit's `rescale: true`)"""
    round_ = ROUNDERS[precision]
    whole, kept = np.abs(before).sum(), np.abs(after).sum()
    if whole < SMALLEST_NORM or kept < SMALLEST_NORM:
        return 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = float(round_(round_(whole) / round_(kept)))
    return ratio if np.isfinite(ratio) and ratio > 0 else float(whole / kept)


@dataclass(frozen=True)
class DeltaOptions:
    """Options of the methods that merge deltas; names as in mergekit's YAML.

    Attributes:
        sparsify: `none`, `magnitude` (TIES) or `random` (DARE).
        consensus: Elect a sign for each element and keep what agrees with it (TIES).
        stream_ids: For `random`, the stream of each expert; see `rust/core/src/philox.rs`.
    """

    sparsify: str = "none"
    consensus: bool = False
    normalize: bool = False
    rescale: bool = False
    lambda_: float = 1.0
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
    """base + λ · mix(wᵢ · sparsify(expertᵢ − base)): task arithmetic, TIES and DARE.

    Sources: Ilharco et al. 2022 (task arithmetic), Yadav et al. 2023 (TIES), Yu et al. 2023 (DARE);
    normalisation, rescaling and rounding as in mergekit 0.1.5.
    """
    round_ = ROUNDERS[precision]
    inner = ROUNDERS["float64" if precision == "float64" else "float32"]
    base = np.asarray(base, np.float64)
    factors = round_(inner(np.asarray(weights, np.float64)))  # (k,)
    deltas = []
    for number, (expert, density) in enumerate(zip(experts, densities, strict=True)):
        delta = round_(expert - base)
        thin = _thin(delta, density, number, options, precision)
        deltas.append(round_(thin * factors[number]))

    if options.consensus:
        vote = _sum_over_experts(deltas, inner)
        sign = np.where(round_(vote) >= 0, 1.0, -1.0)
        agrees = [np.sign(delta) == sign for delta in deltas]
    else:
        agrees = [np.ones(base.shape, bool) for _ in deltas]
    agreeing = [np.where(a, d, 0.0) for a, d in zip(agrees, deltas, strict=True)]
    present = [np.where(a, f, 0.0) for a, f in zip(agrees, factors, strict=True)]
    mixed = round_(_sum_over_experts(agreeing, inner))
    divisor = round_(_sum_over_experts(present, inner))
    smallest = np.nextafter(0, 1) if options.consensus else SMALLEST_DIVISOR
    if options.normalize:
        mixed = round_(mixed / np.where(np.abs(divisor) < smallest, 1.0, divisor))
    if options.lambda_ != 1:
        mixed = round_(mixed * inner(np.asarray(options.lambda_)))
    return round_(base + mixed)


def _thin(
    delta: Array, density: float, number: int, options: DeltaOptions, precision: str
) -> Array:
    if options.sparsify == "none" or density >= 1:
        return delta
    if options.sparsify == "magnitude":
        thin = trim(delta, density)
        scale_precision = precision
    else:
        thin = drop(delta, density, options.seed, options.stream_ids[number], precision)
        scale_precision = "float32" if precision == "float16" else precision
    if not options.rescale or density <= 0:
        return thin
    return ROUNDERS[precision](thin * l1_scale(delta, thin, scale_precision))


def _sum_over_experts(terms: Sequence[Array], inner: Rounder) -> Array:
    total = np.zeros_like(terms[0])
    for term in terms:
        total = inner(total + term)
    return total
