"""From mergekit's bound arguments to a plan of one tensor, and the core on torch's memory."""

import math
from dataclasses import replace
from typing import Any

import torch

from mergeplan._native import merge_tensors
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.config.methods import KNOWN, Method
from mergeplan.errors import InputError
from mergeplan.merging.targets import bytes_of
from mergeplan.planning.document import Job, Plan
from mergeplan.planning.lowering import Dtypes, ResolvedTensor, lower

DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


def why_not(
    name: str,
    group: Any,
    values: dict[str, Any],
    dtype: torch.dtype | None,
    out_dtype: torch.dtype | None,
) -> str | None:
    """The reason why the core cannot merge a group; `None` where it can.

    Args:
        name: The method.
        group: A `TensorGroup`.
        values: The method's parameters as mergekit has bound them.
        dtype: What inputs are cast to.
        out_dtype: What the result is cast to; `None` for `dtype`.
    """
    tensors = group.tensors
    if not tensors or (KNOWN[name].family == "delta" and not group.non_base):
        return "there is nothing to merge"
    for tensor in tensors:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return f"a {type(tensor).__name__}"
        if tensor.device.type != "cpu":
            return f"on {tensor.device.type}"
        if tensor.layout != torch.strided or not tensor.is_contiguous():
            return "not contiguous"
        if tensor.requires_grad and torch.is_grad_enabled():
            return "it records gradients"
    for one in (*(tensor.dtype for tensor in tensors), dtype, out_dtype or dtype):
        if one not in DTYPES:
            return f"{str(one).removeprefix('torch.')}"
    return _odd_option(KNOWN[name], values)


def _odd_option(method: Method, values: dict[str, Any]) -> str | None:
    for key, option in method.options.items():
        for value in values[key].values() if option.per_input else [values[key]]:
            if not math.isfinite(value):
                return f"{key} is not finite"
            low, high = option.minimum, option.maximum
            if (low is not None and value < low) or (high is not None and value > high):
                return f"{key} is out of range"
    return None


def merge_group(
    name: str,
    group: Any,
    values: dict[str, Any],
    dtype: torch.dtype,
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """Merge a group that `why_not` has nothing against; arguments as there.

    Raises:
        InputError: Options do not fit each other, or values are not finite.
    """
    method = KNOWN[name]
    has_base = method.family == "delta" or (method.code is not None and method.base != "none")
    base = group.base if has_base else None
    # Only these know which tensor is which: mergekit's ids may be of any type.
    numbers = {entry.id: str(number) for number, entry in enumerate(group.entries)}
    inputs = [entry for entry in group.entries if entry is not base]
    promoted = group.entries[0].tensor.dtype
    for entry in group.entries[1:]:
        promoted = torch.promote_types(promoted, entry.tensor.dtype)
    tensor = ResolvedTensor(
        # It keys the random masks.
        name=group.metadata.name or "",
        method=method,
        base=None if base is None else _reference(numbers[base.id]),
        inputs=[(str(entry.id), _reference(numbers[entry.id])) for entry in inputs],
        shared={key: values[key] for key in _options(method, per_input=False)},
        each=[
            {key: values[key][entry.id] for key in _options(method, per_input=True)}
            for entry in inputs
        ],
    )
    names = [str(one).removeprefix("torch.") for one in (promoted, dtype, out_dtype)]
    return _run(tensor, Dtypes(*names), group.tensors, out_dtype)


def merge_by_own(
    name: str,
    group: Any,
    values: dict[str, Any],
    dtype: torch.dtype | None,
    out_dtype: torch.dtype | None,
) -> torch.Tensor:
    """Merge a group by a method of the user's own; arguments as for `why_not`.

    Tensors that the core cannot read where they are come to it as copies: there is nobody else who
    could merge them.

    Raises:
        InputError: The core cannot merge them; the message says why.
    """
    device = group.tensors[0].device
    entries = [replace(one, tensor=_readable(one.tensor)) for one in group.entries]
    group = replace(group, entries=tuple(entries))
    reason = why_not(name, group, values, dtype, out_dtype)
    if reason is not None or dtype is None:
        raise InputError(f"method `{name}`, tensor `{group.metadata.name}`: {reason}")
    return merge_group(name, group, values, dtype, out_dtype or dtype).to(device)


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    found = tensor.detach().cpu().contiguous()
    return found if found.dtype in DTYPES else found.float()


def _options(method: Method, *, per_input: bool) -> list[str]:
    return [key for key, option in method.options.items() if option.per_input is per_input]


def _reference(number: str) -> TensorRef:
    return TensorRef(0, number)


def _run(
    tensor: ResolvedTensor,
    dtypes: Dtypes,
    tensors: tuple[torch.Tensor, ...],
    out_dtype: torch.dtype,
) -> torch.Tensor:
    """Merge `tensors`, which the references name by their numbers."""
    shape = list(tensors[0].shape)
    job = Job(tensor.name, tuple(shape), DTYPES[out_dtype], lower(tensor, dtypes))
    plan = Plan(
        seed=torch.initial_seed(),
        allow_nonfinite=False,
        max_shard_bytes=1,  # of no meaning in memory
        models=("memory",),
        jobs=(job,),
    )
    result = torch.empty(shape, dtype=out_dtype)
    merge_tensors(
        plan.json(),
        [
            (str(number), bytes_of(one), DTYPES[one.dtype], shape)
            for number, one in enumerate(tensors)
        ],
        (bytes_of(result), DTYPES[out_dtype]),
        threads=torch.get_num_threads(),
    )
    return result
