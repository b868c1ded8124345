"""What torch pickles beside a checkpoint's bytes, read without running anything that it names.

A pickle is a program for a stack machine. This one knows the few opcodes and names that a state
dict is made of; calls are looked up in a table, and whatever else a file names is refused. Nothing
is computed from a value, so that a small file costs little: a tuple that holds itself many times
over, say, is never a key, for to hash it would take for ever.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# A tensor takes about 30 steps. What a step makes has 64 bytes or so: 250 MB at the most.
_MOST_STEPS = 4_000_000
# torch's own bound.
_MOST_AXES = 64
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "storage.UntypedStorage": "uint8",
}
# Bytes of an element. torch has more dtypes; a tensor of theirs is refused by its name.
SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex128": 16,
    "complex64": 8,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING")
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Other("set"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Storage:
    """Elements in one piece, by the key under which the archive has them."""

    dtype: str
    key: str
    n_elements: int

    @property
    def n_bytes(self) -> int:
        return self.n_elements * SIZES[self.dtype]


@dataclass(frozen=True)
class Strided:
    """A tensor: elements of a storage, from `offset` on.

    Attributes:
        as_stored: Whether its values are those of its bytes; they are not where torch keeps in mind
            to negate or conjugate them.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    as_stored: bool

    @property
    def is_contiguous(self) -> bool:
        step = 1
        for side, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if side != 1 and stride != step:
                return 0 in self.shape
            step *= side
        return True


@dataclass(frozen=True)
class Other:
    """What is no weight: a device, a dtype, a sparse tensor."""

    what: str


@dataclass(frozen=True)
class _Name:
    """What a file names, as `module.name`."""

    full: str


def unpickled(raw: bytes) -> Any:
    """What a pickle holds: dicts, lists and tuples of plain values, `Strided` and `Other`.

    Raises:
        ValueError: It is none that a state dict is made of; the message is for people.
    """
    try:
        return _Machine().run(raw)
    except (LookupError, TypeError, OverflowError) as error:
        raise ValueError("its pickle is damaged") from error


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, raw: bytes) -> Any:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if step == _MOST_STEPS:
                raise ValueError(f"its pickle has more than {_MOST_STEPS} steps")
            self._do(opcode.name, argument)
        return self.stack.pop()

    def _do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES or name in _BYTES:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in _TUPLES:
            self._replace(_TUPLES[name], tuple)
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("SETITEM", "SETITEMS"):
            pairs = self._marked() if name == "SETITEMS" else self._popped(2)
            _set(stack[-1], pairs)
        elif name in ("APPEND", "APPENDS"):
            items = self._marked() if name == "APPENDS" else self._popped(1)
            _is(stack[-1], list).extend(items)
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "GLOBAL":
            stack.append(_named(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            self._replace(2, lambda parts: _named(".".join(parts)))
        elif name in ("REDUCE", "NEWOBJ"):
            self._replace(2, lambda call: _called(_is(call[0], _Name), _is(call[1], tuple)))
        elif name == "BUILD":
            stack.pop()  # the attributes of a dict or of a parameter, which are no weights
        elif name == "ADDITEMS":
            self._marked()
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"its pickle has an opcode that torch does not write: {name}")

    def _popped(self, count: int) -> list[Any]:
        # Nothing below the last mark, nor below the bottom.
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise IndexError
        popped = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return popped

    def _marked(self) -> list[Any]:
        return self._popped(len(self.stack) - self.marks.pop())

    def _replace(self, count: int, make: Callable[[list[Any]], Any]) -> None:
        self.stack.append(make(self._popped(count)))


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _set(target: Any, pairs: list[Any]) -> None:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if type(key) not in _KEYS:
            raise ValueError(f"its pickle has a key of type {type(key).__name__}")
        _is(target, dict)[key] = value


def _named(full: str) -> _Name:
    if full.startswith("torch.") and full.removeprefix("torch.") in _STORAGES:
        return _Name(full)
    if full not in _CALLS and not full.startswith(_INERT):
        raise ValueError(f"it names `{full[:100]}`, which is not read: that may run code")
    return _Name(full)


def _called(name: _Name, arguments: tuple[Any, ...]) -> Any:
    make = _CALLS.get(name.full)
    return make(*arguments) if make else Other(name.full[:100])


def _storage(saved: Any) -> Storage:
    word, kind, key, _, n_elements = _is(saved, tuple)
    dtype = _STORAGES[_is(kind, _Name).full.removeprefix("torch.")]
    if word != "storage" or not 0 <= _is(n_elements, int) < 1 << 63:
        raise TypeError
    return Storage(dtype, _is(key, str), n_elements)


def _strided(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Strided:
    dtype = _is(storage, Storage).dtype
    sides, steps = (tuple(_is(n, int) for n in _is(t, tuple)) for t in (shape, strides))
    numbers = (_is(offset, int), *sides, *steps)
    if len(sides) != len(steps) or len(sides) > _MOST_AXES:
        raise TypeError
    if min(numbers) < 0 or max(numbers) >= 1 << 63:
        raise OverflowError
    # Whether it needs a gradient, its hooks, and then, where there are any, what to keep in mind.
    return Strided(storage, dtype, offset, sides, steps, not any(rest[2:]))


def _strided_of_dtype(*arguments: Any) -> Any:
    *plain, dtype = arguments[:7]
    made = _strided(*plain, *arguments[7:])
    name = _is(dtype, _Name).full.removeprefix("torch.")
    if name not in SIZES:
        return Other(name)
    return Strided(made.storage, name, made.offset, made.shape, made.strides, made.as_stored)


def _of_subclass(function: Any, _: Any, arguments: Any, *state: Any) -> Any:
    return _called(_is(function, _Name), _is(arguments, tuple))


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor": _strided,
    "torch._utils._rebuild_tensor_v2": _strided,
    "torch._utils._rebuild_tensor_v3": _strided_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch._utils._rebuild_sparse_tensor": lambda *_: Other("a sparse tensor"),
    "torch._utils._rebuild_qtensor": lambda *_: Other("a quantised tensor"),
    "torch._utils._rebuild_nested_tensor": lambda *_: Other("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: Other("a tensor without values"),
}
# Names that are never called, only remembered: dtypes, devices, layouts.
_INERT = (
    "torch.",
    "collections.Counter",
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "__builtin__.set",
)
