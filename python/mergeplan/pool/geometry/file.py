"""The geometry of a pool as a JSON file, and the Gram matrix that `select` takes from it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le, MinLen, Predicate
from numpy.typing import NDArray

from mergeplan.display.text import finite
from mergeplan.errors import InputError
from mergeplan.pool.geometry.geometry import Geometry, TensorGroup
from mergeplan.pool.pool import nearest_size
from mergeplan.system.files import expanded
from mergeplan.system.ranges import Count, Params
from mergeplan.system.reading import GEOMETRY
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably

Array = NDArray[np.float64]

# 2: `pool_hash`, of which a file of version 1 has none.
VERSION = 2
_FORMAT = "mergeplan geometry"

_HINT = "write one: `mergeplan similarity POOL.yml -o geometry.json`"


@dataclass(frozen=True, eq=False)
class Gram:
    """Inner products of the deltas of one base's experts, (experts, experts).

    Attributes:
        pool_hash: Which models the pool has, by their content; empty where a run did not say.
    """

    n_params: float
    experts: tuple[str, ...]
    matrix: Array
    pool_hash: str = ""


Entry = Annotated[float, Ge(-1e300), Le(1e300)]
Matrix = tuple[tuple[Entry | None, ...], ...]


@dataclass(frozen=True)
class GroupData:
    """A `TensorGroup`; null where there is no number."""

    n_elements: Count
    norms: tuple[Entry, ...]
    gram: tuple[tuple[Entry, ...], ...]
    cosines: Matrix
    agreement: Matrix
    kept: Matrix


@dataclass(frozen=True)
class SizeData:
    """A `Geometry`."""

    base: str
    n_params: Params
    experts: Annotated[tuple[str, ...], MinLen(1)]
    densities: tuple[Entry, ...]
    read_bytes: Count
    whole: GroupData
    by_kind: dict[str, GroupData]
    by_layer: dict[str, GroupData]
    left_out: dict[str, str]


def _is_ours(found: str) -> bool:
    if found != _FORMAT:
        raise ValueError(f"`{_FORMAT}`")
    return True


def _is_known(version: int) -> bool:
    if version not in (1, VERSION):
        raise ValueError(f"version 1 or {VERSION}")
    return True


def _is_square(size: SizeData) -> bool:
    n = len(size.experts)
    for group in (size.whole, *size.by_kind.values(), *size.by_layer.values()):
        for matrix in (group.gram, group.cosines, group.agreement):
            if len(matrix) != n or any(len(row) != n for row in matrix):
                raise ValueError(f"matrices of {n} experts")
    gram = np.array(size.whole.gram, np.float64)
    values = np.linalg.eigvalsh(gram)
    if not np.allclose(gram, gram.T) or values[-1] <= 0 or values[0] < -1e-6 * values[-1]:
        raise ValueError("inner products: a symmetric matrix without negative eigenvalues")
    return True


@dataclass(frozen=True)
class GeometryFile:
    """What the file holds."""

    format: Annotated[str, Predicate(_is_ours)]
    version: Annotated[int, Predicate(_is_known)]
    sizes: Annotated[tuple[Annotated[SizeData, Predicate(_is_square)], ...], MinLen(1)]
    pool_hash: str = ""


def geometry_data(geometries: Sequence[Geometry], pool_hash: str = "") -> dict[str, Any]:
    """Everything, as JSON takes it; NaN becomes null.

    Args:
        pool_hash: As for `Gram`.
    """
    sizes = [
        SizeData(
            base=str(one.base),
            n_params=one.n_params,
            experts=one.experts,
            densities=one.densities,
            read_bytes=one.read_bytes,
            whole=_group(one.whole),
            by_kind={kind: _group(group) for kind, group in one.by_kind.items()},
            by_layer={str(layer): _group(group) for layer, group in one.by_layer.items()},
            left_out=dict(one.left_out),
        )
        for one in geometries
    ]
    return asdict(GeometryFile(_FORMAT, VERSION, tuple(sizes), pool_hash))


def _group(group: TensorGroup) -> GroupData:
    return GroupData(
        n_elements=group.n_elements,
        norms=tuple(group.norms.tolist()),
        **{
            name: finite(getattr(group, name).tolist())
            for name in ("gram", "cosines", "agreement", "kept")
        },
    )


def save_geometry(
    geometries: Sequence[Geometry], path: str | Path, *, replace: bool = True
) -> None:
    """Write what `similarity` found, for `select(geometry=…)`.

    Args:
        replace: Whether a file may be there.

    Raises:
        SurroundingsError: It cannot be written, or something is in the way.
    """
    text = json.dumps(geometry_data(geometries), allow_nan=False)
    write_durably(expanded(path), text + "\n", replace=replace)


def load_grams(path: Path, hint: str = _HINT) -> tuple[Gram, ...]:
    """The Gram matrix of each size, from a file that `mergeplan similarity -o` wrote.

    Args:
        hint: What to do where it is none.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no geometry, or one of another version.
    """
    data = load_strictly(path, GeometryFile, GEOMETRY, hint, given=True)
    return tuple(
        Gram(size.n_params, size.experts, np.array(size.whole.gram, np.float64), data.pool_hash)
        for size in data.sizes
    )


def grams_of(geometries: Iterable[Geometry]) -> tuple[Gram, ...]:
    """The same from what `similarity` found.

    Args:
        geometries: One for each base size.

    Returns:
        A matrix for each; of no pool that is told.
    """
    return tuple(Gram(one.n_params, one.experts, one.whole.gram) for one in geometries)


def gram_for(grams: Sequence[Gram], n_params: float | None, experts: Sequence[str]) -> Array:
    """The matrix of some experts, in their order.

    Args:
        n_params: N of their base; `None` where there is only one.

    Raises:
        InputError: No size is near, several are, or an expert is not among them.
    """
    if n_params is None and len(grams) > 1:
        raise InputError(
            f"the geometry has {len(grams)} sizes, and the measurements name none",
            "add a column `n_params`",
        )
    counts = [gram.n_params for gram in grams]
    hint = "compare the experts of that base: `mergeplan similarity POOL.yml -o FILE`"
    which = 0 if n_params is None else nearest_size(counts, n_params, "the geometry", hint)
    nearest = grams[which]
    missing = [name for name in experts if name not in nearest.experts]
    if missing:
        known = ", ".join(nearest.experts)
        raise InputError(f"the geometry has no expert `{missing[0]}`", f"it has: {known}")
    places = [nearest.experts.index(name) for name in experts]
    return nearest.matrix[np.ix_(places, places)]
