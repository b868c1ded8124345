"""What agreement with mergekit means, class by class (see docs/agreement.md)."""

import numpy as np
import torch
from numpy.typing import NDArray

from mergeplan import reference
from mergeplan.reference import round_to
from mergeplan.reference.model_stock import step_length
from mergeplan.reference.sce import variance_over_experts
from mergeplan.reference.swap import importance, threshold
from tests.support.backends import Array, reference_of, values
from tests.support.cases import Case

Mask = NDArray[np.bool_]
MANTISSA = {"float32": 24, "bfloat16": 8, "float16": 11}


def ulp(numbers: Array, dtype: str) -> Array:
    """Distance to the next number of `dtype`, at the magnitude of `numbers`."""
    smallest = {"float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}[dtype]
    _, exponent = np.frexp(np.abs(numbers))
    return np.maximum(np.ldexp(1.0, exponent - MANTISSA[dtype]), smallest)


def inputs_of(case: Case, name: str) -> tuple[Array, list[Array]]:
    """Base, and what each expert differs by from it, rounded to the case's dtype."""
    base = values(case.base[name])
    return base, [round_to(values(expert[name]) - base, case.dtype) for expert in case.experts]


def n_kept_and_below(case: Case, number: int, n: int) -> tuple[int, int]:
    """How many elements of an expert's delta are kept, and how many lie below those."""
    density = case.densities[number]
    if case.info.sparsify == "magnitude":
        n_kept = max(1, int(density * n))
        return n_kept, n - n_kept
    n_kept = int(density * n)
    return n_kept, max(0, n - n_kept - int(case.per_input["gamma"][number] * n))


def threshold_elements(case: Case, name: str) -> Mask:
    """Elements where some expert's magnitude equals a threshold, so that any may be kept.

    mergekit's sort is not stable: which of the tied elements it keeps is chance.
    """
    base, deltas = inputs_of(case, name)
    tied = np.zeros(base.shape, bool)
    if case.info.sparsify not in ("magnitude", "outliers"):
        return tied
    for number, delta in enumerate(deltas):
        if not 0 < case.densities[number] < 1 or base.size == 0:
            continue
        magnitude = np.abs(delta)
        ordered = np.sort(magnitude.reshape(-1))
        n_kept, n_below = n_kept_and_below(case, number, base.size)
        for place in (n_below, n_below + n_kept):
            if 0 < place < base.size and n_kept and ordered[place - 1] == ordered[place]:
                tied |= magnitude == ordered[place]
    return tied


def undecided_signs(case: Case, name: str) -> Mask:
    """Elements whose vote is zero up to rounding, with five experts or more.

    There the order of summation decides the elected sign.
    """
    base, deltas = inputs_of(case, name)
    votes = np.zeros(base.shape)
    total = np.zeros(base.shape)
    for number, (delta, weight) in enumerate(zip(deltas, case.weights, strict=True)):
        density = case.densities[number]
        if case.info.sparsify == "outliers":
            thin = reference.trim_outliers(delta, density, case.per_input["gamma"][number])
        else:
            thin = reference.trim(delta, density)
        votes += weight * thin
        total += np.abs(weight * thin)
    return np.abs(votes) <= 4 * ulp(total, case.dtype)


def scale_of(case: Case, name: str, results: Array) -> Array:
    """Magnitude of the terms that are added up for each element."""
    if not case.base:
        return np.abs(results) + sum(
            np.abs(weight) * np.abs(values(expert[name]))
            for weight, expert in zip(case.weights, case.experts, strict=True)
        )
    base, deltas = inputs_of(case, name)
    moved = np.zeros(base.shape)
    for delta, weight in zip(deltas, case.weights, strict=True):
        moved += np.abs(weight) * np.abs(delta)
    if case.parameters["normalize"] and not case.info.consensus:
        moved /= abs(sum(case.weights))
    return np.abs(base) + np.abs(results) + moved * abs(case.parameters.get("lambda", 1.0))


# In float32 mergekit's own norms and dot products are float32 sums, off by up to 2e-6 of themselves
# where ours are off by 1e-7 (measured against the float64 reference).
FLOAT32_SUMS = 3e-6
EXACT = 1e-6
SUMMING = ("slerp", "nuslerp", "multislerp", "karcher", "model_stock")


def group_tolerance(case: Case, name: str, expected: Array) -> Array:
    """How far from mergekit an element of a group method may be, flips apart.

    In 16 bit: one unit in the last place of the largest input there, times `conditioning`.
    """
    tensors = [values(expert[name]) for expert in case.experts]
    if case.base:
        tensors.append(values(case.base[name]))
    largest = np.maximum(np.abs(expected), total_weight(case) * np.max(np.abs(tensors), axis=0))
    growth = conditioning(case, name)
    if case.dtype != "float32":
        # A unit of a norm just above a power of two is two units of an element just below one.
        return ulp(largest, case.dtype) * (2 * growth if growth > 1 else 1)
    share = FLOAT32_SUMS if case.method in SUMMING else EXACT
    return np.full(expected.shape, share * largest.max(initial=0.0) * growth)


def total_weight(case: Case) -> float:
    """What the inputs are multiplied by, all in all."""
    if case.method != "multislerp" or case.parameters["normalize_weights"]:
        return 1.0
    return max(1.0, float(np.sum(case.weights)))


def conditioning(case: Case, name: str) -> float:
    """How much the last place of a norm or a cosine may come to in the result.

    - Model Stock divides by what may be near zero.
    - SLERP divides by the sine of the angle, which is near zero for opposite vectors.
    - Multi-SLERP normalises a mean direction whose length is rounded, and subtracts it from each
      direction as often as the weights say.
    - Karcher sums rounded terms of each input.
    """
    tensors = [values(expert[name]) for expert in case.experts]
    base = values(case.base[name]) if case.base else None
    if case.method == "model_stock":
        rows = base.shape if case.parameters["filter_wise"] and base.shape else (-1,)
        vectors = [tensor.reshape(rows) for tensor in tensors]
        t = step_length(base.reshape(rows), vectors)
        return 1.0 + float(np.square(t).max(initial=0.0))
    if case.method == "multislerp":
        return 2.0 + 2.0 * total_weight(case)
    if case.method == "karcher":
        return 2.0 if case.dtype != "float32" else 1.0
    if case.method in ("slerp", "nuslerp"):
        return _opposition(case, base, tensors)
    return 1.0


def _opposition(case: Case, base: Array, tensors: list[Array]) -> float:
    """1 / sin³ of the angle between the vectors that are nearest to opposite."""
    if case.method == "slerp":
        first, second = base.reshape(-1), tensors[0].reshape(-1)
    else:
        first, second = (t if base is None else t - base for t in tensors)
        if case.parameters["nuslerp_flatten"] or first.ndim < 2:
            first, second = first.reshape(-1), second.reshape(-1)
        elif case.parameters["nuslerp_row_wise"]:
            first, second = first.swapaxes(0, -1), second.swapaxes(0, -1)
    dots = (first * second).sum(-1)
    norms = np.sqrt(np.square(first).sum(-1) * np.square(second).sum(-1))
    cosines = dots / np.where(norms == 0, 1.0, norms)
    sines = np.sqrt(1 - np.square(np.clip(cosines, -1 + 1e-12, 1 - 1e-12)))
    return float(np.where(cosines < 0, sines**-3.0, 1.0).max(initial=1.0))


def undecided_fusion(case: Case, name: str, mask: Mask | None) -> Mask:
    """Elements whose vote in `sce` is zero up to rounding, with five experts or more."""
    base, deltas = inputs_of(case, name)
    if case.method != "sce" or case.k < 5:
        return np.zeros(base.shape, bool)
    chosen = np.ones(base.shape, bool) if mask is None else mask.reshape(base.shape)
    total = np.abs(deltas).sum(axis=0)
    return chosen & (np.abs(np.sum(deltas, axis=0)) <= 4 * ulp(total, case.dtype))


def mergekits_selection(case: Case, name: str) -> Mask | None:
    """What mergekit selects, for methods that select; asserts that ours differs where it may."""
    if case.method == "sce":
        return _sce_selection(case, name)
    if case.method == "arcee_fusion":
        return _arcee_selection(case, name)
    return None


def _sce_selection(case: Case, name: str) -> Mask | None:
    from mergekit.merge_methods.sce import sce_mask

    density = case.parameters["select_topk"]
    if density >= 1:
        return None
    _, deltas = inputs_of(case, name)
    stacked = torch.stack([expert[name] - case.base[name] for expert in case.experts])
    theirs = values(sce_mask(stacked, density)).astype(bool).reshape(-1)
    flat = np.stack(deltas).reshape(case.k, -1)
    ours = reference.largest_variances(flat, density, case.dtype)
    assert ours.sum() == theirs.sum()
    # topk is not stable: only elements at the threshold may differ.
    if ours.any():
        variance = variance_over_experts(flat, case.dtype)
        assert (variance[ours != theirs] == variance[ours].min()).all()
    return theirs


def _arcee_selection(case: Case, name: str) -> Mask:
    from mergekit.merge_methods.arcee_fusion import DynamicThresholdFusion, _compute_importance

    other, base = case.experts[0][name], case.base[name]
    scores = _compute_importance(other, base)
    mask, limit = DynamicThresholdFusion().compute_fusion_mask(scores)
    theirs, limit_ = values(mask).astype(bool), float(limit)
    ours = importance(values(base), values(other), case.dtype)
    ours_limit = float(threshold(ours, case.dtype))
    # The divergence of a row is a sum of terms of both signs that nearly cancel: what remains of
    # the last places of float32, or of a softmax in float16, scales all scores of the row.
    error = np.abs(ours - values(scores)).max()
    moved = np.abs(inputs_of(case, name)[1][0]).max()
    noise = 3e-6 if case.dtype == "float32" else 1e-4
    assert error <= noise * moved + 2 * ulp(np.abs(ours).max(), case.dtype)
    flips = theirs != (ours >= ours_limit)
    assert abs(limit_ - ours_limit) <= 5 * error + ulp(np.asarray(limit_), case.dtype)
    assert (np.abs(ours[flips] - ours_limit) <= error + abs(limit_ - ours_limit)).all()
    return theirs


def with_selection(case: Case, name: str, mask: Mask | None) -> Array:
    """Our result, with mergekit's selection instead of ours."""
    return reference_of(case, name, mask=mask)
