"""What the law says about the experts, and how it relates to the law of the means."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.fit import fit_law
from mergeplan.law.formulas import HyperbolicLaw
from mergeplan.selection.choices import Choice, subsets_of_size
from mergeplan.selection.problem import equal_weights, values_of
from mergeplan.subset_law.averages import mean_changes, mean_of_size
from mergeplan.subset_law.law import SubsetLaw

Array = NDArray[np.float64]

# Subsets of a size that are listed at most, and of more so many are drawn for their spread.
_LISTED, _DRAWN = 5000, 1000


@dataclass(frozen=True)
class Size:
    """Values over the subsets of one size, measured where they were, else predicted.

    Attributes:
        mean: Over all of them.
        deviation: Standard deviation over all of them, or over those that were drawn.
        lowest, highest: Over the same, and those that were measured.
    """

    k: int
    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Expert:
    """What one expert does.

    Attributes:
        alone: Its value as the only expert; `measured` says whether it was, or is predicted.
        average: Mean change of the value as it joins a merge of one other expert or more.
        here: Change as it joins the chosen merge, or of that merge by having it.
        helps: The same for each domain: whom it helps.
    """

    name: str
    alone: float
    average: float
    here: float
    helps: dict[str, float]
    measured: bool = False


def sizes_of(law: SubsetLaw, seed: int = 0) -> list[Size]:
    """The mean and the spread at each k that the law of single subsets implies."""
    n = len(law.experts)
    known = _known(law)
    found = []
    for k in range(1, n + 1):
        values = values_of(law, equal_weights(_some(n, k, seed)))
        mean = mean_of_size(law.series, k, law.shrinkage)
        own = known.k == k
        mean += float(known.surprise[own].sum()) / comb(n, k)
        seen = np.append(values, known.values[own])
        found.append(Size(k, mean, float(values.std()), float(seen.min()), float(seen.max())))
    return found


@dataclass(frozen=True, eq=False)
class _Known:
    """Plain subsets that were measured: shape (n, n_experts), and (n,) for the others.

    Attributes:
        surprise: Measured less predicted.
    """

    members: NDArray[np.bool_]
    k: NDArray[np.int64]
    values: Array
    surprise: Array


def _known(law: SubsetLaw) -> _Known:
    members = law.weights > 0
    k = members.sum(1)
    plain = np.abs(law.weights - members / np.maximum(k, 1)[:, None]).max(1) < 1e-6
    # Of a row with noise the law says what it is.
    plain &= (k > 0) & np.isfinite(law.measured(law.weights))
    weights, values = law.weights[plain], law.values[plain]
    return _Known(members[plain], k[plain], values, values - law.predict(weights))


def implied_law(sizes: list[Size]) -> HyperbolicLaw | None:
    """Floor, tail and offset of the implied means; none for fewer than three sizes.

    Weighted by k, as the paper fits.
    """
    if len(sizes) < 3:
        return None
    k = np.array([size.k for size in sizes], np.float64)
    return fit_law(k, np.array([size.mean for size in sizes]), k)


def measured_law(law: SubsetLaw) -> HyperbolicLaw | None:
    """The same from the means of the measured subsets; none for fewer than three sizes.

    Where it disagrees with the implied law, the measured subsets are not typical of their sizes, or
    the form does not hold.
    """
    equal = (np.abs(law.weights.sum(1) - 1) < 1e-6) & (law.weights.max(1) > 0)
    counts = (law.weights > 0).sum(1)
    equal &= np.abs(law.weights.max(1) * np.maximum(counts, 1) - 1) < 1e-6
    k = np.unique(counts[equal])
    if len(k) < 3:
        return None
    means = np.array([law.values[equal & (counts == size)].mean() for size in k])
    return fit_law(k.astype(np.float64), means, k.astype(np.float64))


def synergy(law: SubsetLaw) -> Array:
    """Value of each pair less the mean of its two experts alone, shape (n_experts, n_experts).

    Below zero, where lower is better: the two help each other. All merging gains are of this kind;
    pairs differ in how much.
    """
    n = len(law.experts)
    eye = np.eye(n)
    alone = values_of(law, eye)
    matrix = np.zeros((n, n))
    rows, columns = np.triu_indices(n, 1)
    if len(rows):
        pairs = (eye[rows] + eye[columns]) / 2
        matrix[rows, columns] = values_of(law, pairs) - (alone[rows] + alone[columns]) / 2
    return matrix + matrix.T


def pair_surprise(matrix: Array) -> Array:
    """What each pair is beyond what its two experts give to any pair, by least squares.

    An expert that is bad alone gains by every partner: what is left tells partners apart.

    Args:
        matrix: Values of pairs, or `synergy`, which differs by its experts' own alone; shape
            (n_experts, n_experts), of four experts or more: of fewer nothing is left.

    Returns:
        The same shape; rows sum to 0.
    """
    n = len(matrix)
    rows, columns = np.triu_indices(n, 1)
    design = np.zeros((len(rows), n))
    design[range(len(rows)), rows] = design[range(len(rows)), columns] = 1
    own = np.linalg.lstsq(design, matrix[rows, columns], rcond=None)[0]
    left = np.zeros((n, n))
    left[rows, columns] = matrix[rows, columns] - design @ own
    return left + left.T


def experts_of(law: SubsetLaw, choice: Choice, laws: Mapping[str, SubsetLaw]) -> list[Expert]:
    """What each expert does, the most welcome in the chosen merge first.

    Args:
        laws: Of the domains.
    """
    n = len(law.experts)
    inside = np.array([name in choice.weights for name in law.experts])
    alone = values_of(law, np.eye(n))
    average = _average_changes(law)
    found = []
    for i, name in enumerate(law.experts):
        with_it, without = inside.copy(), inside.copy()
        with_it[i], without[i] = True, False
        found.append(
            Expert(
                name=name,
                alone=float(alone[i]),
                average=float(average[i]),
                here=_change(law, with_it, without),
                helps={domain: _change(other, with_it, without) for domain, other in laws.items()},
                measured=law.is_row(np.eye(n)[i]),
            )
        )
    sign = -1.0 if law.higher else 1.0
    return sorted(found, key=lambda expert: (sign * expert.here, expert.name))


def droppable(experts: list[Expert], law: SubsetLaw) -> tuple[str, ...]:
    """Experts that make both the chosen merge and the average merge worse."""
    sign = -1.0 if law.higher else 1.0
    bad = [e for e in experts if sign * e.average > 0 and sign * e.here > 0]
    return tuple(sorted(e.name for e in bad))


def _change(law: SubsetLaw, with_it: NDArray[np.bool_], without: NDArray[np.bool_]) -> float:
    if not without.any():
        return 0.0
    values = values_of(law, equal_weights(np.array([with_it, without])))
    return float(values[0] - values[1])


def _average_changes(law: SubsetLaw) -> Array:
    """Mean over sizes of the mean change as an expert joins subsets without it, (n_experts,).

    Of the form in closed form; a measured subset differs from it by its surprise.
    """
    n = len(law.experts)
    if n == 1:
        return np.zeros(1)
    changes = [mean_changes(law.series, k, law.shrinkage) for k in range(1, n)]
    total = np.sum(changes, axis=0)
    known = _known(law)
    for members, k, surprise in zip(known.members, known.k, known.surprise, strict=True):
        if k > 1:
            total[members] += surprise / comb(n - 1, k - 1)
        if k < n:
            total[~members] -= surprise / comb(n - 1, k)
    return np.asarray(total / (n - 1))


def _some(n: int, k: int, seed: int) -> NDArray[np.bool_]:
    """All subsets of k, or a random sample where they are many."""
    if comb(n, k) <= _LISTED:
        return np.vstack(list(subsets_of_size(n, k)))
    order = np.random.default_rng((seed, k)).random((_DRAWN, n)).argsort(1)
    members: NDArray[np.bool_] = order < k
    return members
