"""The geometry of a pool in tables, for people."""

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.table import align_columns
from mergeplan.display.text import format_bytes, format_count
from mergeplan.pool.geometry.compare import Geometry, TensorGroup

Array = NDArray[np.float64]

# Experts whose cosines are printed as a matrix.
_MATRIX = 12


def geometry_text(geometry: Geometry) -> str:
    """Tables of the experts, of their cosines, and of kinds of modules and layers."""
    n = len(geometry.experts)
    lines = [
        f"{n} experts of a base of {format_count(geometry.n_params)} parameters;"
        f" read {format_bytes(geometry.read_bytes)}",
        "",
        *_experts(geometry),
    ]
    if 1 < n <= _MATRIX:
        lines += ["", *_cosines(geometry)]
    if n > 1:
        lines += ["", *_groups(geometry)]
    return "\n".join(lines)


def _experts(geometry: Geometry) -> list[str]:
    whole = geometry.whole
    kept = [f"at {density:g}" for density in geometry.densities]
    rows = [["expert", "norm", *kept, "nearest, farthest by cosine"]]
    for number, name in enumerate(geometry.experts):
        shares = [f"{share:.0%}" for share in whole.kept[number]]
        others = [
            (whole.cosines[number, i], other)
            for i, other in enumerate(geometry.experts)
            if i != number and np.isfinite(whole.cosines[number, i])
        ]
        ends = [max(others), min(others)] if others else []
        words = ", ".join(f"{other} {cosine:.2f}" for cosine, other in ends)
        rows.append([name, f"{whole.norms[number]:.4g}", *shares, words])
    return ["shares of the square that densities keep", *align_columns(rows, left=1, words=1)]


def _cosines(geometry: Geometry) -> list[str]:
    names = geometry.experts
    title = "cosines, and above the diagonal the share of elements of the same sign"
    rows = [["", *names]]
    for row, name in enumerate(names):
        cells = [
            f"{geometry.whole.agreement[row, column]:.0%}"
            if column > row
            else f"{geometry.whole.cosines[row, column]:.2f}"
            for column in range(len(names))
        ]
        rows.append([name, *cells])
    return [title, *align_columns(rows, left=1)]


def _groups(geometry: Geometry) -> list[str]:
    """Means over experts and pairs, for each kind of module and each layer."""
    total = float(np.trace(geometry.whole.gram)) or 1.0
    table = [["means over pairs", "elements", "of the square", "cosine", "same sign"]]
    rows: list[tuple[str, TensorGroup]] = [("whole", geometry.whole)]
    rows += [(kind, group) for kind, group in geometry.by_kind.items()]
    rows += [(f"layer {layer}", group) for layer, group in geometry.by_layer.items()]
    for name, group in rows:
        share = float(np.trace(group.gram)) / total
        cosine, agreement = mean_of_pairs(group.cosines), mean_of_pairs(group.agreement)
        count = format_count(group.n_elements)
        table.append([name, count, f"{share:.1%}", f"{cosine:.2f}", f"{agreement:.0%}"])
    return align_columns(table, left=1)


def mean_of_pairs(matrix: Array) -> float:
    """Mean over the pairs of different experts for which there is a number; NaN for none."""
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return float(pairs.mean()) if len(pairs) else float("nan")
