"""The geometry of a pool in tables, for people."""

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.text import format_bytes, format_count
from mergeplan.pool.geometry.compare import Geometry, TensorGroup

Array = NDArray[np.float64]

# Experts whose cosines are printed as a matrix.
_MATRIX = 12
_WIDTH = 8


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
    kept = "  ".join(f"{density:>5g}" for density in geometry.densities)
    lines = [
        f"{'':14}  {'':>9}  share of its square kept at density",
        f"{'expert':14}  {'norm':>9}  {kept}  nearest, farthest by cosine",
    ]
    for number, name in enumerate(geometry.experts):
        shares = "  ".join(f"{share:5.0%}" for share in whole.kept[number])
        others = [
            (whole.cosines[number, i], other)
            for i, other in enumerate(geometry.experts)
            if i != number and np.isfinite(whole.cosines[number, i])
        ]
        ends = [max(others), min(others)] if others else []
        words = ", ".join(f"{other} {cosine:.2f}" for cosine, other in ends)
        lines.append(f"{name:14.14}  {whole.norms[number]:9.4g}  {shares}  {words}")
    return lines


def _cosines(geometry: Geometry) -> list[str]:
    names = geometry.experts
    lines = [
        "cosines, and above the diagonal the share of elements of the same sign",
        " " * 14 + "".join(f"{name[: _WIDTH - 1]:>{_WIDTH}}" for name in names),
    ]
    for row, name in enumerate(names):
        cells = [
            f"{geometry.whole.agreement[row, column]:{_WIDTH}.0%}"
            if column > row
            else f"{geometry.whole.cosines[row, column]:{_WIDTH}.2f}"
            for column in range(len(names))
        ]
        lines.append(f"{name:14.14}" + "".join(cells))
    return lines


def _groups(geometry: Geometry) -> list[str]:
    """Means over experts and pairs, for each kind of module and each layer."""
    total = float(np.trace(geometry.whole.gram)) or 1.0
    lines = [f"{'means over pairs':14}  elements   of the square  cosine  same sign"]
    rows: list[tuple[str, TensorGroup]] = [("whole", geometry.whole)]
    rows += [(kind, group) for kind, group in geometry.by_kind.items()]
    rows += [(f"layer {layer}", group) for layer, group in geometry.by_layer.items()]
    for name, group in rows:
        share = float(np.trace(group.gram)) / total
        lines.append(
            f"{name:16.16}  {format_count(group.n_elements):>8}  {share:14.1%}"
            f"  {mean_of_pairs(group.cosines):6.2f}  {mean_of_pairs(group.agreement):9.0%}"
        )
    return lines


def mean_of_pairs(matrix: Array) -> float:
    """Mean over the pairs of different experts for which there is a number; NaN for none."""
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return float(pairs.mean()) if len(pairs) else float("nan")
