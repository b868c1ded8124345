"""The Pareto front: subsets that no other beats on every one of some domains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.table import align_columns
from mergeplan.selection.choices import subsets_of_size
from mergeplan.selection.problem import equal_weights, values_of
from mergeplan.subset_law.law import SubsetLaw
from mergeplan.system.blas import on_one_thread

Array = NDArray[np.float64]

# More subsets than these are not listed: a random sample, and single changes of what is best in
# it, stand for them.
_LISTED = 70_000


@dataclass(frozen=True)
class FrontPoint:
    """A subset on the front, and its value on each domain."""

    subset: tuple[str, ...]
    values: tuple[float, ...]


@on_one_thread
def pareto_front(laws: Sequence[SubsetLaw], max_experts: int | None = None) -> list[FrontPoint]:
    """The front, by the first domain's value, best first.

    Args:
        laws: Of the domains, two or more.
        max_experts: Most that may be merged.
    """
    experts = laws[0].experts
    most = min(max_experts or len(experts), len(experts))
    members = _subsets(len(experts), most)
    costs = _costs(laws, members)
    kept = _undominated(costs)
    while 2 ** len(experts) > _LISTED:
        grown = _with_neighbours(members[kept], most)
        new = _costs(laws, grown)
        best = _undominated(new)
        same = len(best) == len(kept) and np.array_equal(new[best], costs[kept])
        members, costs, kept = grown, new, best
        if same:
            break
    signs = np.array([-1.0 if law.higher else 1.0 for law in laws])
    return [
        FrontPoint(
            tuple(n for n, there in zip(experts, members[i], strict=True) if there),
            tuple(float(value) for value in signs * costs[i]),
        )
        for i in kept
    ]


def _costs(laws: Sequence[SubsetLaw], members: NDArray[np.bool_]) -> Array:
    """Shape (n, n_laws)."""
    weights = equal_weights(members)
    return np.stack(
        [(-1.0 if law.higher else 1.0) * values_of(law, weights) for law in laws], axis=1
    )


def _undominated(costs: Array) -> list[int]:
    """Rows that no other row beats, the best on the first column first."""
    kept: list[int] = []
    for i in np.lexsort(costs.T[::-1]):
        if not any((costs[j] <= costs[i]).all() for j in kept):
            kept.append(int(i))
    return kept


def _subsets(n: int, most: int) -> NDArray[np.bool_]:
    if 2**n <= _LISTED:
        return np.vstack([chunk for k in range(1, most + 1) for chunk in subsets_of_size(n, k)])
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, most + 1, 5000)
    return np.vstack([np.eye(n, dtype=np.bool_), rng.random((5000, n)).argsort(1) < sizes[:, None]])


def _with_neighbours(members: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    n = members.shape[1]
    changed = members[:, None, :] ^ np.eye(n, dtype=np.bool_)[None]  # (n_members, n, n)
    every = np.unique(np.vstack([members, changed.reshape(-1, n)]), axis=0)
    sizes = every.sum(1)
    kept: NDArray[np.bool_] = every[(sizes > 0) & (sizes <= most)]
    return kept


def front_table(points: list[FrontPoint], names: tuple[str, ...]) -> str:
    """The Pareto front, one line for each subset."""
    rows = [
        [*(f"{value:.4f}" for value in point.values), "+".join(point.subset)] for point in points
    ]
    return "\n".join(align_columns([[*names, "subset"], *rows], left=0, words=1))
