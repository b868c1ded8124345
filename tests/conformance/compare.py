"""What agreement with mergekit means, class by class (see docs/agreement.md)."""

import numpy as np
from numpy.typing import NDArray

from cases import Case
from mergeplan.reference import round_to, trim

Array = NDArray[np.float64]
MANTISSA = {"float32": 24, "bfloat16": 8, "float16": 11}


def ulp(values: Array, dtype: str) -> Array:
    """Distance to the next number of `dtype`, at the magnitude of `values`."""
    smallest = {"float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}[dtype]
    _, exponent = np.frexp(np.abs(values))
    return np.maximum(np.ldexp(1.0, exponent - MANTISSA[dtype]), smallest)


def threshold_elements(case: Case, name: str) -> NDArray[np.bool_]:
    """Elements where some expert's magnitude equals its threshold, so that any may be kept.

    mergekit's sort is not stable: which of the tied elements it keeps is chance.
    """
    from backends import values

    base = values(case.base[name])
    tied = np.zeros(base.shape, bool)
    for expert, density in zip(case.experts, case.densities, strict=True):
        if not 0 < density < 1 or base.size == 0:
            continue
        magnitude = np.abs(round_to(values(expert[name]) - base, case.dtype))
        n_kept = max(1, int(density * base.size))
        threshold = np.sort(magnitude.reshape(-1))[base.size - n_kept]
        if (magnitude == threshold).sum() > 1:
            tied |= magnitude == threshold
    return tied


def undecided_signs(case: Case, name: str) -> NDArray[np.bool_]:
    """Elements whose vote is zero up to rounding, with five experts or more.

    There the order of summation decides the elected sign.
    """
    from backends import values

    base = values(case.base[name])
    votes = np.zeros(base.shape)
    total = np.zeros(base.shape)
    for expert, weight, density in zip(case.experts, case.weights, case.densities, strict=True):
        delta = weight * trim(round_to(values(expert[name]) - base, case.dtype), density)
        votes += delta
        total += np.abs(delta)
    return np.abs(votes) <= 4 * ulp(total, case.dtype)


def scale_of(case: Case, name: str, results: Array) -> Array:
    """Magnitude of the terms that are added up for each element."""
    from backends import values

    base = values(case.base[name])
    moved = np.zeros(base.shape)
    for expert, weight in zip(case.experts, case.weights, strict=True):
        moved += np.abs(weight) * np.abs(values(expert[name]) - base)
    if case.parameters["normalize"] and not case.method.endswith("ties"):
        moved /= abs(sum(case.weights))
    return np.abs(base) + np.abs(results) + moved * abs(case.parameters.get("lambda", 1.0))
