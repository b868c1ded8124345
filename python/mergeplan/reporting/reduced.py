"""Laws of single subsets in a form that a page can evaluate for any ticks and weights.

A law is a sum over its rows, and its intervals are by the inverse of their covariance: few numbers
where few merges were measured. Of more the page has the rows alone, and makes that covariance and
its factor itself (`web/made.js`). What leans on a smaller size, or has errors of its own, has its
cubic form, which is short with few experts, and what is left of its coefficients' covariance.
"""

import base64
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.subset_law.law import SubsetLaw
from mergeplan.subset_law.prior import OMITTED
from mergeplan.subset_law.rows import OWN, REMAINDER
from mergeplan.subset_law.spread import BETWEEN, NINE_IN_TEN
from mergeplan.subset_law.weightings import seen

Array = NDArray[np.float64]

# Rows that a law is carried by with the inverse, of 8 · n² / 2 bytes; and terms of the cubic form,
# of which eleven experts have 364.
MOST_ROWS, MOST_TERMS = 120, 400
# Rows whose covariance the page makes itself: its factor takes r³/6 products.
MOST_MADE = 2000
# Relative error of an interval's width that dropped directions may make; 5 % is promised.
_DROPPED = 0.01
# Weightings that a form is held against, and by how much its values and widths may be off.
_CHECKED, _ROUNDED, _PROMISED = 60, 1e-6, 0.05


def reduced(law: SubsetLaw) -> dict[str, Any] | None:
    """A law's predictions and their deviations, misfit included, as the page computes them.

    Returns:
        `kind` is `rows` or `made`, exact, or `terms`, whose intervals are within 5 % of the exact
        width.
        `None` where neither is short enough.
    """
    common = {
        "experts": law.experts,
        "shrinkage": law.shrinkage,
        "quantile": NINE_IN_TEN,
        "scale": law.scale,
        "misfit": float(law.variances[-1]),
        **_remainder(law),
    }
    if law.smaller is None and law.noise is None:
        if law.slopes is None and len(law.values) <= MOST_ROWS:
            return {**common, **_by_rows(law)}
        if len(law.observed) <= MOST_MADE and _has_factor(law):
            return {**common, **_made(law)}
    form = _by_terms(law) if _n_terms(len(law.experts)) <= MOST_TERMS else None
    return None if form is None else {**common, **form}


def _remainder(law: SubsetLaw) -> dict[str, Any]:
    """What a merge of few experts has for itself beside the misfit, and how intervals widen between
    the base and a sum of 1, of laws with slopes."""
    if not law.n_own:
        return {}
    gram = packed(law.geometry @ law.geometry.T, "<f8") if law.by_geometry else None
    variance = float(law.variances[-1 - OWN])
    return {
        "remainder": {"variance": variance, "degree": REMAINDER, "gram": gram},
        "wider": {"most": law.below, "by": BETWEEN},
    }


def packed(values: Array, dtype: str) -> str:
    """Numbers as base64, little-endian."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode()


def _by_rows(law: SubsetLaw) -> dict[str, Any]:
    fitted = [float(one) for one in law.variances[: law.prior.degree]]
    n = len(law.values)
    return {
        "kind": "rows",
        "fitted": fitted,
        "omitted": OMITTED * fitted[-1],
        "constant": law.constant,
        "n_rows": n,
        "duals": packed(law.duals, "<f8"),
        # One half of a near singular matrix's inverse is none by itself; that of both's mean is.
        "inverse": packed(((law.inverse + law.inverse.T) / 2)[np.tril_indices(n)], "<f8"),
        "points": packed(law.points, "<f8"),
        "contrast": packed(law.contrast, "<f8"),
        "geometry": packed(law.geometry, "<f8") if law.by_geometry else None,
    }


def _has_factor(law: SubsetLaw) -> bool:
    """Whether the covariance of the rows, which may be near singular, is none beyond rounding."""
    powers = law.prior.parts(law.rows)
    covariance = np.tensordot(law.variances[:-1], powers, 1)
    covariance += law.variances[-1] * np.eye(len(covariance))
    try:
        least = np.diag(np.linalg.cholesky(covariance)).min()
    except np.linalg.LinAlgError:
        return False
    return bool(least**2 > _ROUNDED**2 * covariance.diagonal().max() / len(covariance))


def _made(law: SubsetLaw) -> dict[str, Any]:
    """What was measured and the prior's variances: 8 bytes for each row, and for each weight."""
    fitted = [float(one) for one in law.variances[: law.prior.degree]]
    return {
        "kind": "made",
        "fitted": fitted,
        "omitted": OMITTED * fitted[-1],
        "own": [float(v) for v in law.variances[-1 - OWN : -1]] if law.n_own else [0.0, 0.0],
        "constant": law.constant,
        "duals": packed(law.duals, "<f8"),
        "weights": packed(seen(law.weights, law.shrinkage), "<f8"),
        "sloped": law.rows.sloped.tolist(),
        "contrast": packed(law.contrast, "<f8"),
        "gram": packed(law.geometry @ law.geometry.T, "<f8") if law.by_geometry else None,
    }


def _n_terms(n: int) -> int:
    return 1 + n + n * (n + 1) // 2 + n * (n + 1) * (n + 2) // 6


def terms(seen: Array) -> Array:
    """1, x_i, x_i·x_j and x_i·x_j·x_l with i ≤ j ≤ l, shape (n, n_terms)."""
    n_experts = seen.shape[1]
    columns = [np.ones(len(seen))]
    for degree in (1, 2, 3):
        for some in itertools.combinations_with_replacement(range(n_experts), degree):
            columns.append(np.prod(seen[:, some], axis=1))
    return np.stack(columns, axis=1)


def _by_terms(law: SubsetLaw) -> dict[str, Any] | None:
    """The cubic form, and what is left of its coefficients' covariance as a sum of squares.

    The coefficients are found from predictions at more weightings than there are terms: of weights
    that sum to 1 many sets of coefficients say the same. `None` where other weightings show that
    the form is not the law's: a law that leans on a smaller size may be lost in rounding.
    """
    own = law.in_seen_weights()
    rng = np.random.default_rng(0)
    weights = _weightings(law, rng)
    features = terms(weights)
    inverse = np.linalg.pinv(features)
    coefficients = inverse @ own.predict(weights)
    misfits = own.misfits(weights)
    wider = own.widening(weights)
    joint = own.covariances(weights) / (law.scale**2 * np.outer(wider, wider)) - np.diag(misfits)
    values, vectors = np.linalg.eigh(inverse @ joint @ inverse.T)
    roots = vectors * np.sqrt(np.maximum(values, 0))  # (n_terms, n_terms), the largest last
    parts = (features @ roots)[:, ::-1] ** 2
    whole = parts.sum(1) + misfits
    left = whole[:, None] - np.cumsum(parts, axis=1) - misfits[:, None]
    # A width is the root: half the relative error of its square.
    enough = np.flatnonzero((left / whole[:, None]).max(0) < 2 * _DROPPED)
    rank = int(enough[0]) + 1 if len(enough) else parts.shape[1]
    fresh = _weightings(law, np.random.default_rng(1))[-_CHECKED:]
    others = terms(fresh)
    off = np.abs(others @ coefficients - own.predict(fresh)).max()
    variance = ((others @ roots[:, ::-1][:, :rank]) ** 2).sum(1) + own.misfits(fresh)
    widths = law.scale * own.widening(fresh) * np.sqrt(variance) / own.deviations(fresh)
    if off > _ROUNDED or np.abs(widths - 1).max() > _PROMISED:
        return None
    return {
        "kind": "terms",
        "coefficients": packed(coefficients, "<f8"),
        "rank": rank,
        "roots": packed(roots[:, ::-1][:, :rank], "<f4"),
    }


def _weightings(law: SubsetLaw, rng: np.random.Generator) -> Array:
    """Subsets and unequal weights, as the law sees them: twice as many as there are terms.

    Every other one has another sum, from the base on: of sums of 1 alone many forms say the same,
    and of other sums they say anything else.
    """
    n = len(law.experts)
    count = max(2 * _n_terms(n), 200)
    chosen = (rng.random((count, n)) < rng.random((count, 1))).astype(float)
    chosen[:, 0] += chosen.sum(1) == 0
    uneven = chosen * rng.exponential(size=(count, n))
    pairs = np.eye(n)[np.array(list(itertools.combinations_with_replacement(range(n), 2)))].sum(1)
    every = np.concatenate([pairs, np.ones((1, n)), chosen[: count // 2], uneven[: count // 2]])
    weights = every / every.sum(1, keepdims=True)
    weights[::2] *= np.linspace(0, 1.5, len(weights[::2]))[:, None]
    return seen(weights, law.shrinkage)
