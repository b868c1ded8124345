"""Fit the form to measured merges of one domain or metric, by restricted maximum likelihood."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.text import counted
from mergeplan.errors import InputError
from mergeplan.subset_law.form import HIGHEST_DEGREE, contrast_of, gram_root
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.rows import OWN
from mergeplan.subset_law.solving import solved, standard
from mergeplan.subset_law.variances import fit_variances, log_likelihood

Array = NDArray[np.float64]

FEWEST = 4
# Logarithm of the odds from which on evidence is very strong (Kass and Raftery, 1995). With the
# geometry at lesser odds two trained pools explain more of random subsets and choose worse: of 30
# experts and 60 merges, at 3 to 5, R² is 0.949 and not 0.912, and the regret 0.029 and not 0.009.
# Errors of merges left out are no guide: beside single experts few are of several.
_VERY_STRONG = 5.0
# Different k above one from which on the shrinkage is chosen: with fewer, merges that are left out
# have neighbours of their own k, and tell nothing about others.
_SIZES_FOR_SHRINKAGE = 2


def fit_subset_law(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    *,
    name: str = "loss",
    higher: bool = False,
    gram: Array | None = None,
    shrinkages: tuple[float, ...] = (1.0,),
    noise: Array | None = None,
    slopes: Array | None = None,
) -> SubsetLaw:
    """Fit one domain or metric.

    Args:
        weights: Shape (n, n_experts), the order of `experts`; zero for the base.
        values: Shape (n,); NaN for merges that were not measured on it.
        gram: Inner products of the experts' deltas; see `form.gram_root`. Taken where they make the
            values likelier by far.
        shrinkages: Powers of k to choose from, by the error of merges that are left out; the first
            of them where only one k above one was measured.
        noise: Known covariance of the values, shape (n, n); `None` for none.
        slopes: Of values by the weight of each expert in base + Σ α_i v_i, whose sum is free, in
            the values' unit per unit of weight, shape (n, n_experts); rows of NaN for merges that
            have none, `None` where none has.

    Returns:
        The law, with what it predicts of each merge that is left out.

    Raises:
        InputError: Too few merges, an expert in none of them, or only one k; slopes that the form
            has no place for, see `refuse_slopes`.
    """
    there = np.isfinite(values)
    weights, values = weights[there], values[there]
    noise = None if noise is None else noise[np.ix_(there, there)]
    slopes = None if slopes is None else slopes[there]
    refuse_too_few(weights, experts, name)
    return fit_few(
        weights, values, experts,
        name=name, higher=higher, gram=gram, shrinkages=shrinkages, noise=noise, slopes=slopes,
    )  # fmt: skip


def refuse_slopes(
    slopes: Array, shrinkages: tuple[float, ...], noise: Array | None, name: str
) -> None:
    """Whether slopes are of a form in the weights themselves, whole, and of the whole text.

    Args:
        slopes: Shape (n_rows, n_experts).
        shrinkages: Powers of k to choose from.
        noise: Known covariance of the rows' values, shape (n_rows, n_rows).
        name: Of the domain or metric, for the message.

    Raises:
        InputError: They are not.
    """
    some = np.isfinite(slopes)
    if not some.any():
        return
    if shrinkages != (1.0,):
        raise InputError(
            f"`{name}`: slopes by the experts' weights, of a method whose merges do not depend on"
            " the weighted sum of the deltas alone",
            "leave the slopes out: its law is of values",
        )
    whole = some.all(1)
    if (some.any(1) & ~whole).any():
        raise InputError(f"`{name}`: a merge has slopes by some experts, expected all or none")
    if noise is not None and (np.diag(noise)[whole] > 0).any():
        raise InputError(
            f"`{name}`: slopes of a merge that was not scored on the whole text",
            "leave its slopes out, or score it on all of the text",
        )


def refuse_too_few(weights: Array, experts: Sequence[str], name: str) -> None:
    """Whether these merges tell of every expert, and of how the value changes with k.

    Args:
        weights: Of the merges, shape (n_rows, n_experts).
        experts: Their names, in the order of the columns.
        name: Of the domain or metric, for the message.

    Raises:
        InputError: They do not.
    """
    sizes = sizes_in(weights)
    used = np.any(weights > 0, axis=0)  # (n_experts,)
    missing = [expert for expert, is_there in zip(experts, list(used), strict=True) if not is_there]
    if missing:
        raise InputError(f"`{name}`: no merge with the expert `{missing[0]}` was measured")
    if len(weights) < FEWEST or len(sizes) < 2:
        n = int((weights > 0).any(1).sum())
        few = f"{'is' if n == 1 else 'are'} too few"
        raise InputError(
            f"`{name}`: {counted(n, 'merges')} of k = {', '.join(map(str, sizes))} {few},"
            f" expected {FEWEST} or more, of two different k",
            "measure every single expert, some pairs, and all of them merged",
        )


def sizes_in(weights: Array) -> tuple[int, ...]:
    """The different k of some merges, without the base.

    Args:
        weights: Of the merges, shape (n_rows, n_experts).

    Returns:
        In ascending order.
    """
    return tuple(sorted({int(k) for k in (weights > 0).sum(1) if k}))


def fit_few(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    *,
    name: str,
    higher: bool,
    gram: Array | None,
    shrinkages: tuple[float, ...],
    smaller: SubsetLaw | None = None,
    noise: Array | None = None,
    slopes: Array | None = None,
) -> SubsetLaw:
    """Fit whatever there is: what an expert does that no merge has is the prior's.

    Args:
        weights: Of the merges, shape (n_rows, n_experts).
        values: Finite.
        gram: Inner products of the experts' deltas; `None` where they are not known.
        shrinkages: Powers of k to choose from.
        smaller: A law of a smaller size to lean on.
        noise: Known covariance of the values; `None` for none.
        slopes: As for `fit_subset_law`.

    Returns:
        The law of the shrinkage with the least error at merges that are left out.

    Raises:
        InputError: As `refuse_slopes` has it.
    """
    if slopes is not None:
        refuse_slopes(slopes, shrinkages, noise, name)
        slopes = slopes if np.isfinite(slopes).any() else None
    sizes = sizes_in(weights)
    if sum(k > 1 for k in sizes) < _SIZES_FOR_SHRINKAGE:
        shrinkages = shrinkages[:1]
    roots = [gram_root(each, len(experts)) for each in ([None] if gram is None else [None, gram])]
    laws = []
    for shrinkage in shrinkages:
        # Where deltas do not shrink by 1/k, many experts do not lead to the base.
        kept = (weights > 0).any(1) | (shrinkage == 1)
        unfitted = (
            _unfitted(
                weights[kept],
                values[kept],
                experts,
                root,
                shrinkage,
                smaller,
                None if noise is None else noise[np.ix_(kept, kept)],
                slopes,
            )
            for root in roots
        )
        fitted = [_fitted(replace(law, name=name, higher=higher, sizes=sizes)) for law in unfitted]
        gain = evidence(fitted[-1]) - evidence(fitted[0]) if gram is not None else 0.0
        laws.append(fitted[-1] if gain > _VERY_STRONG else fitted[0])
    return min(laws, key=lambda law: law.error)


def _unfitted(
    weights: Array,
    values: Array,
    experts: tuple[str, ...],
    geometry: Array,
    shrinkage: float,
    smaller: SubsetLaw | None,
    noise: Array | None,
    slopes: Array | None,
) -> SubsetLaw:
    contrast = contrast_of(weights, values)
    # Each further degree needs a further k, or nothing tells how the value changes along k.
    degree = min(HIGHEST_DEGREE, len(sizes_in(weights))) if slopes is None else HIGHEST_DEGREE
    own, nothing = 0 if slopes is None else OWN, np.empty(0)
    law = SubsetLaw(
        name="",
        experts=experts,
        weights=weights,
        values=values,
        geometry=geometry,
        contrast=contrast,
        variances=np.ones(degree + (smaller is not None) + own + 1),
        constant=0.0,
        duals=nothing,
        inverse=nothing,
        left_out=nothing,
        sizes=(),
        scale=1.0,
        shrinkage=shrinkage,
        smaller=smaller,
        slopes=slopes,
    )
    if noise is None or not noise.any():
        return law
    return replace(law, noise=np.pad(noise, (0, len(law.observed) - len(noise))))


def _fitted(law: SubsetLaw) -> SubsetLaw:
    one = standard(law)
    found = fit_variances(one.products, one.values, one.expected, one.noise, one.ones)
    return solved(law, one.spread**2 * found, one.products)


def evidence(law: SubsetLaw) -> float:
    """Logarithm of the likelihood of a law's values by its prior, to compare priors by.

    Of the same rows; what is the same for all priors is left out.

    Args:
        law: Fitted to the rows that are compared on.

    Returns:
        The more, the likelier the values.
    """
    one = standard(law)
    variances = law.variances / one.spread**2
    return log_likelihood(one.products, one.values, variances, one.expected, one.noise, one.ones)
