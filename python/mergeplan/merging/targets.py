"""Memory that a caller gives for merged tensors, checked before anything is written to it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mergeplan.checkpoints.dtypes import FLOATS, STORED_NAMES, TORCH_NAMES
from mergeplan.errors import InputError

if TYPE_CHECKING:
    import torch

    Array = np.ndarray[Any, np.dtype[np.uint8]]

# Steps of numpy's search for an element that two tensors share; what takes more counts as one.
_MOST_WORK: Any = 1_000_000
# Of these, each may go into each.
_FLOATING = {*FLOATS, "F64"}
_APART = "give each tensor memory of its own; of tensors that are tied, give one"


def check_target(name: str, target: Any, stored: str) -> None:
    """Refuse what no merged tensor can be written to.

    Args:
        stored: safetensors' name of the dtype that the merge has.

    Raises:
        InputError: It is no plain tensor with memory, its dtype cannot hold the values, or some of
            its elements are one.
    """
    import torch

    def refuse(expected: str, found: str, hint: str | None = None) -> None:
        raise InputError(f"tensor `{name}`: expected {expected}, found {found}", hint)

    if not isinstance(target, torch.Tensor):
        hint = "`torch.from_numpy`" if isinstance(target, np.ndarray) else None
        refuse("a tensor of torch to write to", type(target).__name__, hint)
    if target.layout is not torch.strided:
        refuse("a dense tensor", str(target.layout))
    if target.device.type == "meta":
        refuse("a tensor with memory", "one on the meta device")
    kind = str(target.dtype).removeprefix("torch.")
    if STORED_NAMES.get(kind) != stored and not {STORED_NAMES.get(kind), stored} <= _FLOATING:
        refuse(f"memory of {TORCH_NAMES[stored]}", kind, "load the model in a plain dtype")
    if target.numel() == 0:
        return
    storage = target.untyped_storage()
    if storage.nbytes() < _extent(target)[1] - storage.data_ptr():
        refuse("a tensor with memory", "one whose storage was freed")
    if _repeats(target):
        refuse("a place for each element", "several elements in one", _APART)


def check_apart(targets: Iterable[tuple[str, "torch.Tensor"]]) -> None:
    """Refuse tensors that share memory, on whatever device it is.

    Raises:
        InputError: Two share an element.
    """
    by_device: dict[str, list[tuple[int, int, str, torch.Tensor]]] = {}
    for name, target in targets:
        if target.numel():
            by_device.setdefault(str(target.device), []).append((*_extent(target), name, target))
    for found in by_device.values():
        found.sort(key=lambda one: one[:2])
        # Those that reach beyond the beginning of the one that is looked at.
        reaching: list[tuple[int, int, str, torch.Tensor]] = []
        for one in found:
            reaching = [other for other in reaching if other[1] > one[0]]
            for other in reaching:
                if _share(one[3], other[3]):
                    raise InputError(
                        f"tensors `{other[2]}` and `{one[2]}` would be written to the same memory",
                        _APART,
                    )
            reaching.append(one)


def places_of(targets: Iterable[tuple[str, "torch.Tensor"]]) -> list[tuple[str, int, int]]:
    """Name, address and length of what lies in this process's memory."""
    there = [(name, t) for name, t in targets if t.numel() and t.device.type == "cpu"]
    ends = [(name, *_extent(target)) for name, target in there]
    return [(name, begin, end - begin) for name, begin, end in ends]


def bytes_of(tensor: "torch.Tensor") -> "Array":
    """The memory of a tensor on the CPU that is contiguous, as the core takes it."""
    import torch

    array: Array = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return array


def takes_as_it_is(tensor: "torch.Tensor", stored: str) -> bool:
    """Whether the core can write a merge's values straight to a tensor.

    It can on the CPU, in row-major order, in the dtype of the merge or another that it merges in.
    """
    name = STORED_NAMES[str(tensor.dtype).removeprefix("torch.")]
    as_stored = not (tensor.is_neg() or tensor.is_conj())
    lies_so = tensor.device.type == "cpu" and tensor.is_contiguous() and as_stored
    return lies_so and (name == stored or {name, stored} <= FLOATS.keys())


def _extent(tensor: "torch.Tensor") -> tuple[int, int]:
    """First address, and the one behind the last."""
    begin = tensor.data_ptr()
    last = sum((s - 1) * step for s, step in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def _repeats(tensor: "torch.Tensor") -> bool:
    """Whether elements share a place; true too of some odd views where none do."""
    reach = 0
    sides = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    for step, side in sides:
        if side > 1:
            if step <= reach:
                return True
            reach += (side - 1) * step
    return False


def _share(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    if one.is_contiguous() and other.is_contiguous():
        return True  # their extents overlap, and have no gaps
    try:
        return np.shares_memory(_described(one), _described(other), max_work=_MOST_WORK)
    except RuntimeError:  # numpy's `TooHardError`
        return True


class _Described:
    """What numpy is told of a tensor's memory, which it does not touch."""

    def __init__(self, interface: Mapping[str, Any]) -> None:
        self.__array_interface__ = interface


def _described(tensor: "torch.Tensor") -> "np.ndarray[Any, Any]":
    size = tensor.element_size()
    strides: Sequence[int] = [step * size for step in tensor.stride()]
    interface = {
        "version": 3,
        "data": (tensor.data_ptr(), True),
        "shape": tuple(tensor.shape),
        "strides": tuple(strides),
        "typestr": f"|V{size}",
    }
    return np.asarray(_Described(interface))
