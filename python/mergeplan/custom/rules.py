"""What a method must keep to, tried on made-up values before a merge reads its first byte.

A function that looked beyond its element would give other values for other blocks, and one that
remembered what it saw would give other values in other threads: neither can be seen in an output.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.custom.block import Block
from mergeplan.custom.calls import Callee
from mergeplan.custom.declare import DECLARED, Declared
from mergeplan.errors import InputError
from mergeplan.system import signals

_ELEMENTS, _ROWS, _COLUMNS = 384, 12, 33
# Vector units may round the ends of a vector otherwise.
_NEAR = 1e-5


# What was tried already: a large model asks for each of its tensors.
_tried: set[tuple[object, ...]] = set()


def try_method(
    name: str,
    n_models: int,
    has_base: bool,
    options: dict[str, Any],
    model_options: dict[str, list[Any]],
) -> None:
    """Try a method with some options, unless that was done; see `check_rules`."""
    declared = DECLARED[name]
    values = (*options.values(), *(one for each in model_options.values() for one in each))
    key = declared.code.source, n_models, has_base, values
    if key not in _tried:
        try:
            check_rules(declared, n_models, has_base, options, model_options)
        finally:
            # SIGTERM is a `SystemExit` too, of which the function makes what it likes.
            signals.raise_again()
        _tried.add(key)


def check_rules(
    declared: Declared,
    n_models: int,
    has_base: bool,
    options: dict[str, Any],
    model_options: dict[str, list[Any]],
) -> None:
    """Try a method.

    Args:
        n_models: Beside the base.
        options, model_options: As the merge has them.

    Raises:
        InputError: It raises, returns another shape, or breaks a rule; the message names it.
    """
    where = f"method `{declared.method.name}`"
    callee = Callee(declared)
    try:
        block, pieces = _blocks(callee, n_models, has_base, options, model_options)
        whole = callee.results(block)
        others = _in_threads(lambda: callee.results(block))
        if any(other.tobytes() != whole.tobytes() for other in others):
            raise InputError("it gives other values for the same block")
        unit = "row" if declared.code.by_rows else "element"
        if not _near(np.concatenate([callee.results(piece) for piece in pieces]), whole):
            raise InputError(
                f"a {unit}'s value changes with the {unit}s beside it",
                "ask for `statistics` or a `State` of the whole tensor instead",
            )
        if declared.state is not None:
            _check_state(callee, block)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from error


def _blocks(
    callee: Callee,
    n_models: int,
    has_base: bool,
    options: dict[str, Any],
    model_options: dict[str, list[Any]],
) -> tuple[Block, list[Block]]:
    """A block, and the same in three pieces."""
    by_rows = callee.declared.code.by_rows
    shape = (_ROWS, _COLUMNS) if by_rows else (_ELEMENTS,)
    draw = np.random.default_rng(0)
    base = draw.normal(0, 0.02, shape).astype(np.float32) if has_base else None
    models = draw.normal(0, 0.02, (n_models, *shape)).astype(np.float32)
    if base is not None:
        models = base + 0.1 * models
    models.flags.writeable = False
    broadcast = (n_models, *[1] * len(shape))
    each = {k: np.asarray(v, np.float32).reshape(broadcast) for k, v in model_options.items()}
    values = models if base is None else models - base
    density = each.get("density", np.ones(broadcast)).ravel()
    numbers = _statistics(values.reshape(n_models, -1), density)
    block = Block(
        models=models,
        base=base,
        options=options,
        model_options=each,
        statistics={
            name: numbers[name].reshape(broadcast) for name in callee.declared.code.statistics
        },
        states=[_state(callee, [one]) for one in values],
        tensor="made-up values",
        shape=shape,
    )
    third = shape[0] // 3
    cuts = [slice(0, third), slice(third, 2 * third), slice(2 * third, None)]
    pieces = [
        replace(block, models=models[:, cut], base=None if base is None else base[cut])
        for cut in cuts
    ]
    return block, pieces


def _statistics(
    values: NDArray[np.float32], density: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Of each model. `values` has shape (k, n)."""
    wide = np.abs(values.astype(np.float64))
    kept = (density.astype(np.float64) * wide.shape[1]).astype(int)
    falling = -np.sort(-wide, axis=1)
    least = [row[n - 1] if n else np.inf for row, n in zip(falling, kept, strict=True)]
    return {
        "l1": wide.sum(axis=1),
        "l2": np.sqrt((wide * wide).sum(axis=1)),
        "largest": wide.max(axis=1),
        "threshold": np.asarray(least),
    }


def _state(callee: Callee, pieces: Sequence[NDArray[np.float32]]) -> Any:
    """Of some pieces, one behind the other."""
    if callee.declared.state is None:
        return None
    found = [callee.state_of(piece) for piece in pieces]
    joined = found[0]
    for one in found[1:]:
        joined = callee.join(joined, one)
    return joined


def _check_state(callee: Callee, block: Block) -> None:
    """States of pieces, joined in any way, have to do what that of the whole does."""
    values = block.models if block.base is None else block.deltas
    expected = callee.results(block)
    third = values.shape[1] // 3
    pieces = [[v[:third], v[third : 2 * third], v[2 * third :]] for v in values]
    left = [_state(callee, one) for one in pieces]
    right = [callee.join(_state(callee, one[:1]), _state(callee, one[1:])) for one in pieces]
    for states in (left, right):
        if not _near(callee.results(replace(block, states=states)), expected):
            raise InputError(
                "its state is not the same for a tensor as for the tensor in pieces",
                "`merge` must give what `update` gives for both pieces together",
            )


def _near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    return bool(np.allclose(found, expected, rtol=_NEAR, atol=_NEAR * scale, equal_nan=True))


def _in_threads(work: Callable[[], NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Three times: once more here, and side by side in two threads."""
    results: list[NDArray[np.float32]] = []
    faults: list[InputError] = []

    def run() -> None:
        try:
            results.append(work())
        except InputError as error:
            faults.append(error)

    run()
    threads = [Thread(target=run, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return results
