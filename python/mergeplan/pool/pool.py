"""`POOL.yml`: the bases, their experts, the texts to measure on, and the methods."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import count_params
from mergeplan.checkpoints.dtypes import most_common_dtype
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.config.labels import method_of
from mergeplan.display.text import format_count, parse_count
from mergeplan.errors import InputError, nearest
from mergeplan.system.yamlfile import read_yaml

# The label of k = 0 in lists of merges.
BASE = "base"
# Sizes are often names (3B) of bases that count a little more or less.
_SIZE_TOLERANCE = 1.3


@dataclass(frozen=True)
class PoolSize:
    """One base size.

    Attributes:
        experts: Absolute folder by name.
        n_params: As the file gives it; `None` to count it from the headers.
    """

    base: Path
    experts: dict[str, Path]
    n_params: float | None = None

    def count_params(self) -> float:
        """N: every tensor of the base once, a head that is tied to the embedding not at all.

        Raises:
            InputError: The base's headers are at fault.
        """
        return self._counted

    @cached_property
    def _counted(self) -> float:
        return float(round(self.n_params or count_params(open_checkpoint(str(self.base)))))

    @cached_property
    def out_dtype(self) -> str:
        """Torch name of the base's own dtype, by bytes the most common.

        Raises:
            InputError: The base's headers are at fault.
        """
        tensors = open_checkpoint(str(self.base)).tensors.values()
        return most_common_dtype((tensor.dtype, tensor.n_bytes) for tensor in tensors)


@dataclass(frozen=True)
class Pool:
    """A validated pool. `methods` holds each label's options; data paths are absolute.

    The options are checked, the models are not opened.
    """

    sizes: tuple[PoolSize, ...]
    data: dict[str, Path]
    methods: dict[str, dict[str, Any]]

    def nearest_size(self, n_params: float) -> int:
        """Index of the base of about n_params parameters.

        Raises:
            InputError: None is near, or a base's headers are at fault.
        """
        counts = [size.count_params() for size in self.sizes]
        ratios = [max(count / n_params, n_params / count) for count in counts]
        if min(ratios) > _SIZE_TOLERANCE:
            have = ", ".join(format_count(count) for count in counts)
            raise InputError(f"the pool has no base of {format_count(n_params)}: found {have}")
        return ratios.index(min(ratios))


def load_pool(path: Path) -> Pool:
    """Read a pool file; relative paths in it are relative to it.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no valid pool; the message names the key.
    """
    data = read_yaml(path, "pool")
    try:
        return _pool(data, path.resolve().parent)
    except InputError as error:
        raise type(error)(f"`{path}`: {error.message}", error.hint) from error


def _pool(data: object, folder: Path) -> Pool:
    top = _mapping(data, "the file", ("sizes", "data", "methods"))
    sizes = top.get("sizes")
    if not isinstance(sizes, list) or not sizes:
        raise InputError("`sizes`: expected a list with a `base` and its `experts`")
    texts = _mapping(top.get("data") or {}, "data")
    methods = _mapping(top.get("methods") or {"average": {}}, "methods")
    for label, options in methods.items():
        # A label becomes a part of file names and a cell of a CSV.
        if not isinstance(label, str) or not label.strip() or label == BASE:
            raise InputError(f"`methods`: `{label}` is no label", f"use words other than `{BASE}`")
        method_of(label, _mapping(options or {}, f"methods.{label}"))
    return Pool(
        sizes=tuple(_size(size, f"sizes[{i}]", folder) for i, size in enumerate(sizes)),
        data={domain: _path(text, f"data.{domain}", folder) for domain, text in texts.items()},
        methods={label: dict(options or {}) for label, options in methods.items()},
    )


def _size(value: object, where: str, folder: Path) -> PoolSize:
    size = _mapping(value, where, ("base", "experts", "n_params"))
    experts = _mapping(size.get("experts"), f"{where}.experts")
    if not experts:
        raise InputError(f"`{where}.experts` is empty")
    for name in experts:
        if not isinstance(name, str) or not name or set(name) & set("+,\n"):
            raise InputError(f"`{where}.experts`: `{name}` is no name: use words without + and ,")
    n_params = size.get("n_params")
    try:
        count = None if n_params is None else parse_count(str(n_params))
    except ValueError as error:
        raise InputError(f"`{where}.n_params`: found `{n_params}`", str(error)) from error
    base = _path(size.get("base"), f"{where}.base", folder)
    folders = {
        name: _path(path, f"{where}.experts.{name}", folder) for name, path in experts.items()
    }
    _refuse_twice(where, {"base": base} | {f"experts.{name}": p for name, p in folders.items()})
    return PoolSize(base, folders, count)


def _refuse_twice(where: str, folders: dict[str, Path]) -> None:
    """A folder under two names would count as two experts, or as one that changes nothing."""
    seen: dict[Path, str] = {}
    for key, path in folders.items():
        first = seen.setdefault(path.resolve(), key)
        if first != key:
            raise InputError(f"`{where}.{key}` and `{where}.{first}` are the same folder, `{path}`")


def _mapping(value: object, where: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"`{where}`: expected a mapping")
    for key in value:
        if known is not None and key not in known:
            raise InputError(f"unknown key `{key}` in {where}", nearest(str(key), list(known)))
    return value


def _path(value: object, where: str, folder: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise InputError(f"`{where}`: expected a path")
    return folder / Path(value).expanduser()


def method_in(label: str, options: str, pool: Pool) -> tuple[str, dict[str, Any]]:
    """Label and options: those that were measured, else those of the pool's label."""
    label = label or next(iter(pool.methods))
    measured = json.loads(options)
    if measured or label not in pool.methods:
        return label, measured
    return label, pool.methods[label]


def size_in(n_params: float | None, pool: Pool) -> PoolSize:
    if len(pool.sizes) == 1:
        return pool.sizes[0]
    if n_params is None:
        raise InputError(
            f"the pool has {len(pool.sizes)} sizes, and the measurements name none",
            "add a column `n_params`",
        )
    return pool.sizes[pool.nearest_size(n_params)]
