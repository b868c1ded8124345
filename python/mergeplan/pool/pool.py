"""`POOL.yml`: the bases, their experts, the texts to measure on, and the methods."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.dtypes import most_common_dtype
from mergeplan.checkpoints.heads import count_params
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.display.summary import Summarized
from mergeplan.display.text import format_count
from mergeplan.errors import InputError, raise_all
from mergeplan.pool.file import find_pool
from mergeplan.system.files import expanded

# Sizes are often names (3B) of bases that count a little more or less.
SIZE_TOLERANCE = 1.3


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


@dataclass(frozen=True, repr=False)
class Pool(Summarized):
    """A validated pool. `methods` holds each label's options; data paths are absolute.

    The options are checked, the models are not opened. `random_seed` is the seed of subsets and
    masks, where no other is given. `text` is the file's.
    """

    sizes: tuple[PoolSize, ...]
    data: dict[str, Path]
    methods: dict[str, dict[str, Any]]
    random_seed: int | None = None
    text: str = field(default="", compare=False)

    def summary(self) -> str:
        """Bases with their experts, domains, and methods."""
        lines = []
        for size in self.sizes:
            lines += [
                f"base {size.base}",
                f"  {len(size.experts)} experts: {', '.join(size.experts)}",
            ]
        methods = (
            f"{label} {options}" if options else label for label, options in self.methods.items()
        )
        return "\n".join(
            [*lines, f"data: {', '.join(self.data) or 'none'}", f"methods: {', '.join(methods)}"]
        )

    def records(self) -> list[dict[str, Any]]:
        """A row for each expert of each base."""
        return [
            {"base": str(size.base), "expert": name, "path": str(path)}
            for size in self.sizes
            for name, path in size.experts.items()
        ]

    def nearest_size(self, n_params: float) -> int:
        """Index of the base of about n_params parameters.

        Raises:
            InputError: None is near, or a base's headers are at fault.
        """
        counts = [size.count_params() for size in self.sizes]
        hint = "add that base under `sizes`; `n_params` there says what size a base counts as"
        return nearest_size(counts, n_params, "the pool", hint)


def nearest_size(counts: Sequence[float], n_params: float, where: str, hint: str) -> int:
    """Which of some counts of parameters is about n_params.

    Args:
        where: Who has them, for messages.
        hint: What to do where none is near.

    Raises:
        InputError: None is near.
    """
    ratios = [max(count / n_params, n_params / count) for count in counts]
    if min(ratios) > SIZE_TOLERANCE:
        have = ", ".join(format_count(count) for count in counts)
        raise InputError(f"{where} has no base of {format_count(n_params)}: found {have}", hint)
    return ratios.index(min(ratios))


def load_pool(path: str | Path) -> Pool:
    """Read a pool file; relative paths in it are relative to it.

    Returns:
        The pool, with absolute paths; its models are not opened.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no valid pool; the message names the key.

    Example:
        >>> import mergeplan
        >>> pool = mergeplan.load_pool("pool/pool.yml")
        >>> pool.sizes[0].count_params(), len(pool.sizes[0].experts)
        (80592.0, 9)
    """
    found = find_pool(expanded(path))
    if found.faults:
        raise_all(found.faults)
    return Pool(
        sizes=tuple(
            PoolSize(size.base, size.experts, size.n_params)
            for size in found.sizes.values()
            if size.base is not None
        ),
        data=found.data,
        methods=found.methods,
        random_seed=found.random_seed,
        text=found.text,
    )


def pool_of(pool: Pool | str | Path) -> Pool:
    """A pool, or the one of a file.

    Raises:
        MissingInputError, InputError: As for `load_pool`.
    """
    return pool if isinstance(pool, Pool) else load_pool(pool)


def method_in(label: str, options: str, pool: Pool) -> tuple[str, dict[str, Any]]:
    """Label and options: those that were measured, else those of the pool's label."""
    label = label or next(iter(pool.methods))
    measured = json.loads(options)
    if measured or label not in pool.methods:
        return label, measured
    return label, pool.methods[label]


def size_in(n_params: float | None, pool: Pool) -> PoolSize:
    """The pool's base of about so many parameters; of one size, that one where none are named.

    Raises:
        InputError: None is near, or which of several is not known.
    """
    if n_params is not None:
        return pool.sizes[pool.nearest_size(n_params)]
    if len(pool.sizes) > 1:
        raise InputError(
            f"the pool has {len(pool.sizes)} sizes, and the measurements name none",
            "add a column `n_params`",
        )
    return pool.sizes[0]
