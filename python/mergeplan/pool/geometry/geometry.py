"""What the deltas of a pool's experts have in common, and how that reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import format_bytes, format_count

Array = NDArray[np.float64]

# Experts whose cosines are printed as a matrix.
_MATRIX = 12


@dataclass(frozen=True, eq=False)
class TensorGroup:
    """What the deltas of some tensors have in common; matrices are (experts, experts).

    Attributes:
        n_elements: Of all tensors.
        gram: Inner products of the deltas.
        agreement: Of the elements at which neither delta is zero, the share at which both have the
            same sign; NaN where there is none.
        kept: Share of a delta's squared norm that stays when each tensor is trimmed to a density,
            (experts, densities).
    """

    n_elements: int
    gram: Array
    agreement: Array
    kept: Array

    @property
    def norms(self) -> Array:
        """Lengths of the deltas, (experts,)."""
        lengths: Array = np.sqrt(np.maximum(np.diag(self.gram), 0))
        return lengths

    @property
    def cosines(self) -> Array:
        """Cosines of the angles between deltas; NaN where one is zero."""
        products = np.outer(self.norms, self.norms)
        cosines = np.full_like(self.gram, np.nan)
        np.divide(self.gram, products, out=cosines, where=products > 0)
        return cosines


@dataclass(frozen=True, eq=False, repr=False)
class Geometry(Summarized):
    """The experts of one base.

    Attributes:
        experts: Names, sorted; the order of all matrices.
        n_params: N of the base.
        densities: Of `Group.kept`.
        whole: All tensors together.
        by_layer, by_kind: Those of each layer, and of each kind of module.
        left_out: Tensors that were not compared, and why.
        read_bytes: What was read.
    """

    base: Path
    experts: tuple[str, ...]
    n_params: float
    densities: tuple[float, ...]
    whole: TensorGroup
    by_layer: Mapping[int, TensorGroup]
    by_kind: Mapping[str, TensorGroup]
    left_out: Mapping[str, str]
    read_bytes: int

    def summary(self) -> str:
        """Tables of the experts, of their cosines, and of kinds of modules and layers."""
        n = len(self.experts)
        lines = [
            f"{n} experts of a base of {format_count(self.n_params)} parameters;"
            f" read {format_bytes(self.read_bytes)}",
            "",
            *_experts(self),
        ]
        if 1 < n <= _MATRIX:
            lines += ["", *_cosines(self)]
        if n > 1:
            lines += ["", *_groups(self)]
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for each pair of experts; of one expert with itself, for its norm."""
        whole, names = self.whole, self.experts
        return [
            {
                "expert": name,
                "other": names[j],
                "norm": float(whole.norms[i]),
                "cosine": float(whole.cosines[i, j]),
                "same_sign": float(whole.agreement[i, j]),
            }
            for i, name in enumerate(names)
            for j in range(i, len(names))
        ]


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
