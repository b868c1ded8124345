"""`@mergeplan.method`: a function becomes a merge method."""

import functools
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from mergeplan.config.labels import LABELS
from mergeplan.config.methods import KNOWN, METHODS, BasePolicy, Code, Method, Option
from mergeplan.custom.block import Block
from mergeplan.errors import InputError
from mergeplan.system.reading import CODE, read_bytes

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


@dataclass(frozen=True)
class Running:
    """A file that is being run, and the methods that it has declared so far."""

    file: Path
    source: bytes
    names: set[str] = field(default_factory=set)


# By `loading`, the innermost last.
being_run: list[Running] = []


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
        InputError: The name, an option or another argument cannot be that, or the name is taken.

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
    _check_arguments(where, base, models, by_rows, statistics, state)
    each = {key: _option(where, key, value, True) for key, value in (model_options or {}).items()}
    every = {key: _option(where, key, value, False) for key, value in (options or {}).items()}
    if both := sorted(each.keys() & every.keys()):
        raise InputError(f"{where}: `{both[0]}` is an option of the merge and of each model")
    for one in statistics:
        if one not in STATISTICS:
            raise InputError(
                f"{where}: no statistic `{one!s:.100}`", f"there are: {', '.join(STATISTICS)}"
            )
    if "threshold" in statistics:
        if "density" not in each:
            raise InputError(f"{where}: the statistic `threshold` needs a model option `density`")
        each["density"] = _share(where, "density", each["density"])

    def declare(function: Function) -> Function:
        running = being_run[-1] if being_run else _source_of(where, function)
        if name in running.names:
            raise InputError(f"`{running.file}` declares method `{name}` twice")
        running.names.add(name)
        # Standard output is for data, and blocks are merged by many threads.
        getattr(function, "__globals__", {}).setdefault("print", _print)
        code = Code(running.file, running.source, by_rows, tuple(statistics), state is not None)
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


_print = functools.partial(print, file=sys.stderr)


def _check_arguments(
    where: str, base: object, models: object, by_rows: object, statistics: object, state: object
) -> None:
    fewest, most = models if isinstance(models, tuple) and len(models) == 2 else (0, 0)
    whole = isinstance(fewest, int) and (most is None or isinstance(most, int))
    functions = (state.init, state.update, state.merge) if isinstance(state, State) else ()
    for name, holds, expected in (
        ("base", base in get_args(BasePolicy), "`required`, `optional` or `none`"),
        ("models", whole and 1 <= fewest <= (most or fewest), "the fewest and the most"),
        ("by_rows", isinstance(by_rows, bool), "a bool"),
        ("statistics", isinstance(statistics, tuple | list), "a tuple of names"),
        (
            "state",
            state is None or (len(functions) == 3 and all(map(callable, functions))),
            "a `mergeplan.State` of three functions",
        ),
    ):
        if not holds:
            raise InputError(f"{where}: `{name}`: expected {expected}")


def _option(where: str, key: str, value: OptionValue, per_input: bool) -> Option:
    where = f"{where}: option `{key!s:.100}`"
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
        raise InputError(f"{where}: expected a name", "use a-z, 0-9 and _, a letter first")
    if not isinstance(value, bool | int | float | Option):
        raise InputError(f"{where}: expected a number or a bool, found {type(value).__name__}")
    made = value if isinstance(value, Option) else Option(type(value), value)
    if made.kind not in (bool, int, float):
        raise InputError(f"{where}: expected bool, int or float as its kind")
    default, low, high = made.default, made.minimum, made.maximum
    if default is None:
        return replace(made, per_input=per_input)
    if not isinstance(default, bool | int | float) or not math.isfinite(default):
        raise InputError(f"{where}: expected a finite number as its default, found {default}")
    if not (-math.inf if low is None else low) <= default <= (math.inf if high is None else high):
        raise InputError(f"{where}: its default {default:g} is out of its bounds")
    return replace(made, default=made.kind(default), per_input=per_input)


def _share(where: str, key: str, option: Option) -> Option:
    """An option that the core reads as a share."""
    least = max(0.0, option.minimum or 0.0)
    most = 1.0 if option.maximum is None else min(1.0, option.maximum)
    return _option(
        where, key, replace(option, kind=float, minimum=least, maximum=most), option.per_input
    )


def _source_of(where: str, function: Function) -> Running:
    """Of a function whose module somebody has imported."""
    file = Path(getattr(function, "__code__", method.__code__).co_filename)
    if not hasattr(function, "__code__") or not file.is_file():
        raise InputError(f"{where}: its source is in no file", "put the function into a file")
    return Running(file.resolve(), read_bytes(file.resolve(), CODE))


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
