"""What the core calls of a method of the user's own."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mergeplan.custom.block import Block
from mergeplan.custom.declare import DECLARED, Declared
from mergeplan.errors import InputError
from mergeplan.system.users_code import failed

# Tensor, shape, first element, columns, options as JSON, base and models as float32's bytes.
Call = tuple[str, tuple[int, ...], int, int | None, str, bytes | None, list[bytes]]
T = TypeVar("T")


@dataclass(frozen=True)
class Callee:
    """A method for the core to call, from any thread."""

    declared: Declared

    def state(self, call: Call) -> Any:
        """The state of one model's run; the options in the call are those of all models."""
        models, base = _values(call)
        return self.state_of(models[0] if base is None else models[0] - base)

    def state_of(self, values: NDArray[np.float32]) -> Any:
        """The state of a run's values."""
        state = self.declared.state
        if state is None:
            raise InputError("it has no state")
        values.flags.writeable = False
        return self._run(lambda: state.update(state.init(), values))

    def join(self, first: Any, second: Any) -> Any:
        """The state of two runs."""
        state = self.declared.state
        if state is None:
            raise InputError("it has no state")
        return self._run(state.merge, first, second)

    def merge(
        self, call: Call, statistics: Sequence[Sequence[float]], states: Sequence[Any]
    ) -> bytes:
        """A run's results, as float32's bytes.

        Raises:
            InputError: The function raises, or returns what it must not.
        """
        block = _block(call, self.declared.code.statistics, statistics, states)
        return self.results(block).tobytes()

    def results(self, block: Block) -> NDArray[np.float32]:
        """What the function makes of a block, checked.

        Raises:
            InputError: As for `merge`.
        """
        found = self._run(self.declared.function, block)
        expected = block.models.shape[1:]
        # A masked array, for one, would lose its mask.
        if type(found) is not np.ndarray:
            raise InputError(f"expected an array, found {type(found).__name__}")
        if found.shape != expected:
            raise InputError(f"expected an array of shape {expected}, found {found.shape}")
        if found.dtype.kind != "f":
            raise InputError(f"expected an array of floats, found {found.dtype}")
        with np.errstate(over="ignore"):  # the core says which value is not finite
            return np.ascontiguousarray(found, dtype="<f4")

    def _run(self, function: Callable[..., T], *given: Any) -> T:
        try:
            return function(*given)
        except BaseException as error:
            # Ctrl-C comes to the main thread; whatever else there is, no thread may end by it.
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise
            raise InputError(failed("in", self.declared.code.file, error)) from error


def find(name: str, sha256: str) -> Callee:
    """The method that a plan names.

    Raises:
        InputError: There is none of this name, or it has other code.
    """
    declared = DECLARED.get(name)
    if declared is None:
        raise InputError(f"no method `{name}` is allowed here", "pass `--allow-methods FILE`")
    if declared.code.sha256 != sha256:
        raise InputError(f"method `{name}`: `{declared.code.file}` has changed meanwhile")
    return Callee(declared)


def _block(
    call: Call,
    names: Sequence[str] = (),
    statistics: Sequence[Sequence[float]] = (),
    states: Sequence[Any] = (),
) -> Block:
    tensor, shape, start, _, options, _, _ = call
    models, base = _values(call)
    broadcast = (len(models), *[1] * (models.ndim - 1))
    shared, each = _options(options)
    numbers = np.asarray(statistics, np.float64).reshape(len(statistics), len(names))
    return Block(
        models=models,
        base=base,
        options=shared,
        model_options={key: array.reshape(broadcast) for key, array in each.items()},
        statistics={name: numbers[:, i].reshape(broadcast) for i, name in enumerate(names)},
        states=states,
        tensor=tensor,
        shape=tuple(shape),
        start=start,
    )


def _values(call: Call) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Of the models and of the base, read-only."""
    *_, columns, _, base, models = call
    form = (-1,) if columns is None else (-1, columns)
    values = np.stack([np.frombuffer(model, "<f4").reshape(form) for model in models])
    values.flags.writeable = False
    return values, None if base is None else np.frombuffer(base, "<f4").reshape(form)


@functools.lru_cache(maxsize=64)
def _options(text: str) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Of the merge, and of each model."""
    given = json.loads(text)
    arrays = {key: np.asarray(values, np.float32) for key, values in given["each"].items()}
    for array in arrays.values():
        array.flags.writeable = False
    return given["shared"], arrays
