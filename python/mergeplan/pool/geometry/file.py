"""The geometry of a pool as a JSON file, and the Gram matrix that `select` takes from it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.text import format_count
from mergeplan.errors import InputError, MissingInputError
from mergeplan.pool.geometry.compare import Geometry, TensorGroup

Array = NDArray[np.float64]

VERSION = 1
_FORMAT = "mergeplan geometry"
# Bases whose counts are farther apart are different ones.
_SIZE_TOLERANCE = 1.3


@dataclass(frozen=True, eq=False)
class Gram:
    """Inner products of the deltas of one base's experts, (experts, experts)."""

    n_params: float
    experts: tuple[str, ...]
    matrix: Array


def geometry_data(geometries: Sequence[Geometry]) -> dict[str, Any]:
    """Everything, as JSON takes it; NaN becomes null."""
    return {"format": _FORMAT, "version": VERSION, "sizes": [_size(one) for one in geometries]}


def load_grams(path: Path) -> tuple[Gram, ...]:
    """The Gram matrix of each size, from a file that `mergeplan similarity -o` wrote.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no geometry, or one of another version.
    """
    hint = f"write one: `mergeplan similarity POOL.yml -o {path}`"
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file", hint) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read `{path}`: {error}", hint) from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise InputError(f"`{path}` is no geometry of a pool", hint)
    if data.get("version") != VERSION:
        raise InputError(f"`{path}`: expected version {VERSION}, found {data.get('version')}", hint)
    try:
        return tuple(
            Gram(
                float(size["n_params"]),
                tuple(size["experts"]),
                np.array(size["whole"]["gram"], np.float64).reshape((len(size["experts"]),) * 2),
            )
            for size in data["sizes"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"`{path}` is damaged: {error!r}", hint) from error


def gram_for(grams: Sequence[Gram], n_params: float | None, experts: Sequence[str]) -> Array:
    """The matrix of some experts, in their order.

    Args:
        n_params: N of their base; `None` where there is only one.

    Raises:
        InputError: No size is near, several are, or an expert is not among them.
    """

    def apart(gram: Gram) -> float:
        return 1.0 if n_params is None else abs(math.log(gram.n_params / n_params))

    if n_params is None and len(grams) > 1:
        raise InputError(
            f"the geometry has {len(grams)} sizes, and the measurements name none",
            "add a column `n_params`",
        )
    nearest = min(grams, key=apart)
    if n_params is not None and apart(nearest) > math.log(_SIZE_TOLERANCE):
        have = ", ".join(format_count(gram.n_params) for gram in grams)
        raise InputError(f"the geometry has no base of {format_count(n_params)}: found {have}")
    missing = [name for name in experts if name not in nearest.experts]
    if missing:
        known = ", ".join(nearest.experts)
        raise InputError(f"the geometry has no expert `{missing[0]}`", f"it has: {known}")
    places = [nearest.experts.index(name) for name in experts]
    return nearest.matrix[np.ix_(places, places)]


def _size(geometry: Geometry) -> dict[str, Any]:
    return {
        "base": str(geometry.base),
        "n_params": geometry.n_params,
        "experts": geometry.experts,
        "densities": geometry.densities,
        "read_bytes": geometry.read_bytes,
        "whole": _group(geometry.whole),
        "by_kind": {kind: _group(group) for kind, group in geometry.by_kind.items()},
        "by_layer": {str(layer): _group(group) for layer, group in geometry.by_layer.items()},
        "left_out": dict(geometry.left_out),
    }


def _group(group: TensorGroup) -> dict[str, Any]:
    matrices = {"gram": group.gram, "cosines": group.cosines, "agreement": group.agreement}
    return {
        "n_elements": group.n_elements,
        "norms": group.norms.tolist(),
        **{name: _finite(matrix) for name, matrix in matrices.items()},
        "kept": group.kept.tolist(),
    }


def _finite(matrix: Array) -> list[list[float | None]]:
    return [[x if math.isfinite(x) else None for x in row] for row in matrix.tolist()]
