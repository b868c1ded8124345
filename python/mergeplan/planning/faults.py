"""What does not fit in the models of a merge: all of it, tensors alike together."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError
from mergeplan.planning.jobs import dtype_faults, make_job
from mergeplan.planning.outputs import OutputTensor
from mergeplan.planning.pairing import Fault

# So many patterns are written out in a hint.
_PATTERNS = 4
# Kinds of faults where some model lacks a tensor.
_PRESENCE = ("missing", "extra")


@dataclass(frozen=True)
class Complaint:
    """What some tensors have in common that cannot be merged as the options ask.

    Attributes:
        error: Of the first of them.
        tensors: How many there are.
    """

    error: InputError
    tensor: str
    tensors: int


def complaints(
    config: MergeConfig, tensors: Iterable[OutputTensor], checkpoints: list[Checkpoint]
) -> list[Complaint]:
    """Options that are missing or do not fit; dtypes that never fit are none.

    Args:
        tensors: Of the output.
        checkpoints: The models of the config, in its order.

    Returns:
        One for all tensors alike, in the order of the first of them.
    """
    found: dict[str, Complaint] = {}
    for tensor in tensors:
        if _dtype_faults(tensor, checkpoints):
            continue
        name = tensor.match.name
        try:
            make_job(config, tensor, checkpoints)
        except InputError as error:
            for fault in error.faults:
                alike = fault.message
                for one in {name, *tensor.names}:
                    alike = alike.replace(f"`{one}`", "")
                first = found.get(alike, Complaint(fault, name, 0))
                found[alike] = Complaint(first.error, first.tensor, first.tensors + 1)
    return list(found.values())


def job_faults(
    config: MergeConfig, tensors: Sequence[OutputTensor], checkpoints: list[Checkpoint]
) -> list[InputError]:
    """Why tensors cannot be merged.

    Args:
        tensors: Of the output.
        checkpoints: The models of the config, in its order.

    Returns:
        Dtypes that never fit, by model, and then options; empty where all can be merged.
    """
    dtypes = [fault for tensor in tensors for fault in _dtype_faults(tensor, checkpoints)]
    return told(dtypes) + [
        _with_more(one.error, f" (and {one.tensors - 1} tensors more)", one.error.hint)
        if one.tensors > 1
        else one.error
        for one in complaints(config, tensors, checkpoints)
    ]


def _dtype_faults(tensor: OutputTensor, checkpoints: list[Checkpoint]) -> list[Fault]:
    if tensor.computed is not None:
        return []
    return dtype_faults(tensor.match, tensor.sources(checkpoints))


def told(faults: Iterable[Fault]) -> list[InputError]:
    """What people are told of some faults.

    Args:
        faults: Of single tensors.

    Returns:
        An error for each model and kind of fault: the first, and how many are like it.
    """
    faults = list(faults)
    packed = _packed_hint([fault.tensor for fault in faults if fault.kind in _PRESENCE])
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.model, fault.kind), []).append(fault)
    errors = []
    for (model, kind), group in groups.items():
        error = group[0].error
        if len(group) > 1:
            more = f" (and {len(group) - 1} more like it; `mergeplan inspect` lists all)"
            names = [fault.tensor for fault in group]
            hint = _missing_hint(names) if kind in _PRESENCE else error.hint
            error = _with_more(error, more, hint)
        if kind in _PRESENCE and packed:
            error = _with_more(error, "", packed)
        error.about = model
        errors.append(error)
    return errors


def _with_more(error: InputError, more: str, hint: str | None) -> InputError:
    found = type(error)(error.message + more, hint)
    found.about, found.line, found.excerpt = error.about, error.line, error.excerpt
    return found


def _missing_hint(names: Iterable[str]) -> str:
    """What to do about tensors that some model lacks: all of them in a few patterns."""
    patterns = list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names))
    flags = " ".join(f"--allow-left-out '{pattern}'" for pattern in patterns[:_PATTERNS])
    rest = f" and so on for {len(patterns) - _PATTERNS} more" if len(patterns) > _PATTERNS else ""
    return (
        f"all models of a merge must have the same architecture; `{flags}`{rest} leaves them out of"
        " the output"
    )


def _packed_hint(names: Sequence[str]) -> str | None:
    """What to do where one model has a mixture's experts packed, and another one by one."""
    packed = any(re.search(r"\.experts\.(gate_up|up|down)_proj$", name) for name in names)
    if not packed or not any(re.search(r"\.experts\.\d+\.", name) for name in names):
        return None
    return (
        "one model has its experts packed into one tensor a layer, another one by one: load the"
        " packed one by transformers' `from_pretrained` and save it anew by `save_pretrained`"
    )
