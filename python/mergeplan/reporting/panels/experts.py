"""What each expert does: alone, on average, in the answer; for each domain; and beside others."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.text import finite
from mergeplan.pool.geometry.file import GeometryFile, Gram
from mergeplan.reporting.source import Source, group_of
from mergeplan.selection.geometry import GEOMETRY, grams_beside
from mergeplan.selection.insight import pair_surprise
from mergeplan.selection.selection import Selection, Selections
from mergeplan.system.reading import GEOMETRY as GEOMETRY_KIND
from mergeplan.system.strict import load_strictly

Array = NDArray[np.float64]

# Of so many experts nothing is left of pairs that each expert's own part does not explain.
_LEAST_PAIRED = 3


def panel(source: Source) -> dict[str, Any] | None:
    """By group: experts' effects, what pairs are beyond what each expert gives to any pair, and
    the geometry.

    Returns:
        `order` is one for all matrices: alike experts beside each other.
    """
    if not isinstance(source.selections, Selections):
        return None
    grams = grams_beside(source.table, source.rows)
    groups = source.groups
    found = {}
    for one in source.selections:
        table = one.table
        group = groups.index(group_of(table))
        found[group] = _group(one, _cosines(grams, one))
    return {"groups": found, "geometry": _geometry(source)}


def _group(one: Selection, cosines: Array | None) -> dict[str, Any]:
    n = len(one.law.experts)
    pairs = one.synergy
    mean = float(pairs[~np.eye(n, dtype=bool)].mean()) if n > 1 else 0.0
    beyond = pair_surprise(pairs) if n > _LEAST_PAIRED else np.zeros((n, n))
    like = cosines if cosines is not None else -beyond
    return {
        "names": one.law.experts,
        "experts": [asdict(expert) for expert in one.experts],
        "drop": one.drop,
        "pairs": beyond.tolist(),
        "pairs_mean": mean,
        "cosines": None if cosines is None else cosines.tolist(),
        "order": in_order(like) if n > 2 else list(range(n)),
    }


def in_order(like: Array) -> list[int]:
    """Experts along the second eigenvector of the Laplacian of how alike they are.

    >>> in_order(np.array([[1, 0, .9], [0, 1, .1], [.9, .1, 1]]))
    [0, 2, 1]
    """
    weights = like - like.min()
    np.fill_diagonal(weights, 0.0)
    laplacian = np.diag(weights.sum(1)) - weights
    _, vectors = np.linalg.eigh(laplacian)
    line = vectors[:, 1] * (1 if vectors[0, 1] <= 0 else -1)
    return [int(one) for one in np.argsort(line, kind="stable")]


def _cosines(grams: tuple[Gram, ...], one: Selection) -> Array | None:
    names = one.law.experts
    for gram in grams:
        alike = one.table.n_params is None or math.isclose(
            gram.n_params, one.table.n_params, rel_tol=0.3
        )
        if alike and set(names) <= set(gram.experts):
            places = [gram.experts.index(name) for name in names]
            matrix = gram.matrix[np.ix_(places, places)]
            norms = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
            return np.asarray(matrix / np.outer(norms, norms))
    return None


def _geometry(source: Source) -> list[dict[str, Any]] | None:
    """Norms, mean cosines and sign agreement by layer and kind of module."""
    path = source.table.parent / GEOMETRY
    if source.folder is None or not path.is_file():
        return None
    file = load_strictly(path, GeometryFile, GEOMETRY_KIND)
    sizes = []
    for size in file.sizes:
        parts = {
            kind: [
                {"name": name, **_part(asdict(group))}
                for name, group in sorted(some.items(), key=_by_number)
            ]
            for kind, some in (("layers", size.by_layer), ("kinds", size.by_kind))
        }
        sizes.append({"n_params": size.n_params, "experts": size.experts, **parts})
    found: list[dict[str, Any]] = finite(sizes)
    return found


def _by_number(item: tuple[str, Any]) -> tuple[float, str]:
    name = item[0]
    return (float(name) if name.lstrip("-").isdigit() else math.inf), name


def _part(group: dict[str, Any]) -> dict[str, Any]:
    def mean(matrix: list[list[float | None]]) -> float | None:
        values = [
            value
            for i, row in enumerate(matrix)
            for j, value in enumerate(row)
            if j < i and value is not None
        ]
        return math.fsum(values) / len(values) if values else None

    return {
        "norms": list(group["norms"]),
        "cosine": mean(group["cosines"]),
        "agreement": mean(group["agreement"]),
        "n": group["n_elements"],
    }
