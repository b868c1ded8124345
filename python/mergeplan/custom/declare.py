"""`@mergeplan.method`: a function becomes a merge method."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.labels import LABELS
from mergeplan.config.methods import KNOWN, METHODS, BasePolicy, Code, Method, Option
from mergeplan.custom.block import Block
from mergeplan.errors import InputError
from mergeplan.system.reading import CODE, read_text

STATISTICS = ("l1", "l2", "largest", "threshold")
Function = Callable[[Block], NDArray[Any]]
OptionValue = bool | int | float | Option


@dataclass(frozen=True)
class State:
    """What a method finds out of each model's whole tensor, whatever other models are merged.

    A tensor comes in pieces: for each, `update` of a new state; the states of all, in their order,
    are joined by `merge`.

    Attributes:
        init: A state of nothing.
        update: The state with a piece's values: deltas, or values where there is no base. Shape
            (n,), or (rows, columns) of a method by rows.
        merge: The state of two pieces from theirs.
    """

    init: Callable[[], Any]
    update: Callable[[Any, NDArray[np.float32]], Any]
    merge: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Declared:
    """A method of the user's own, with what it runs."""

    method: Method
    code: Code
    function: Function
    state: State | None


# By name. A process has one method of each.
DECLARED: dict[str, Declared] = {}
# File and text of what is being run by `loading`.
being_run: list[tuple[Path, str]] = []


def method(
    name: str,
    *,
    options: Mapping[str, OptionValue] | None = None,
    model_options: Mapping[str, OptionValue] | None = None,
    base: BasePolicy = "required",
    models: tuple[int, int | None] = (1, None),
    by_rows: bool = False,
    statistics: tuple[str, ...] = (),
    state: State | None = None,
) -> Callable[[Function], Function]:
    """Make a function a merge method that configs and pools can name.

    The function is given a `Block` and returns the merged values, of the shape of
    `block.models[0]`, in float32 or float64. It must treat each element alike (each row, where
    `by_rows`), whatever lies beside it, and depend on nothing but its block: that is tried before
    a merge.

    Args:
        name: As in `merge_method`.
        options: Of the whole merge: the default of each, or an `Option` with bounds.
        model_options: Of each model, such as its weight.
        base: Whether the config must name a `base_model`, may, or names one of the models.
        models: The fewest and the most models beside the base; `None` for any number.
        by_rows: Give it whole rows along the last dimension.
        statistics: What it is told of each model's whole tensor: `l1`, `l2` (norms), `largest`
            (the largest magnitude), `threshold` (the least of the int(density · n) largest
            magnitudes; it needs a model option `density`).
        state: Something else that it finds out of each model's whole tensor.

    Returns:
        What decorates the function, which stays as it is.

    Raises:
        InputError: The name or an option cannot be that, or the name is taken.

    Example:
        >>> import mergeplan
        >>> def halfway(block):
        ...     return block.base + 0.5 * block.deltas.mean(axis=0)
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(
            f"a method cannot be named `{name!s:.100}`", "use a-z, 0-9 and _, a letter first"
        )
    if name in METHODS or name in LABELS:
        raise InputError(f"`{name}` is a method of mergeplan's own", "give yours another name")
    where = f"method `{name}`"
    each = {key: _option(where, key, value, True) for key, value in (model_options or {}).items()}
    every = {key: _option(where, key, value, False) for key, value in (options or {}).items()}
    if both := sorted(each.keys() & every.keys()):
        raise InputError(f"{where}: `{both[0]}` is an option of the merge and of each model")
    for one in statistics:
        if one not in STATISTICS:
            raise InputError(
                f"{where}: no statistic `{one!s:.100}`", f"there are: {', '.join(STATISTICS)}"
            )
    if "threshold" in statistics and "density" not in each:
        raise InputError(f"{where}: the statistic `threshold` needs a model option `density`")

    def declare(function: Function) -> Function:
        file, source = being_run[-1] if being_run else _source_of(where, function)
        code = Code(file, source, by_rows, tuple(statistics), state is not None)
        least, most = models
        made = Method(
            name,
            name,
            None,
            MappingProxyType(each | every),
            family="custom",
            base=base,
            min_inputs=least,
            max_inputs=most,
            code=code,
        )
        _register(Declared(made, code, function, state))
        return function

    return declare


def _option(where: str, key: str, value: OptionValue, per_input: bool) -> Option:
    if isinstance(value, Option):
        return replace(value, per_input=per_input)
    if isinstance(value, bool | int | float):
        return Option(type(value), value, per_input=per_input)
    raise InputError(
        f"{where}: option `{key}`: expected a number or a bool, found {type(value).__name__}"
    )


def _source_of(where: str, function: Function) -> tuple[Path, str]:
    """Of a function whose module somebody has imported."""
    file = Path(getattr(function, "__code__", method.__code__).co_filename)
    if not hasattr(function, "__code__") or not file.is_file():
        raise InputError(f"{where}: its source is in no file", "put the function into a file")
    return file.resolve(), read_text(file.resolve(), CODE)


def _register(declared: Declared) -> None:
    name, code = declared.method.name, declared.code
    before = DECLARED.get(name)
    if before is not None and before.code.file != code.file:
        raise InputError(
            f"`{code.file}` and `{before.code.file}` both have a method `{name}`",
            "give one of them another name",
        )
    DECLARED[name] = declared
    KNOWN[name] = declared.method
