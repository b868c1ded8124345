"""One output tensor's job in the plan: dtypes checked, every option resolved."""

from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import BUFFERS, FLOATS, STORED_NAMES
from mergeplan.config.config import MergeConfig
from mergeplan.config.methods import Method
from mergeplan.config.resolve import resolve
from mergeplan.errors import InputError
from mergeplan.planning.lowering import ResolvedTensor, dtypes_of, lower
from mergeplan.planning.outputs import OutputTensor
from mergeplan.planning.pairing import Fault, Match


def make_job(
    config: MergeConfig, tensor: OutputTensor, checkpoints: list[Checkpoint]
) -> tuple[dict[str, Any], ResolvedTensor | None]:
    """One tensor's job in the plan, and what it came from; buffers have no options.

    Args:
        checkpoints: Those of `config.models`.

    Raises:
        InputError: A dtype or an option does not fit.
    """
    match = tensor.match
    references = [
        {"model": number, "tensor": name}
        for number, name in zip(tensor.numbers, match.inputs, strict=True)
    ]
    sources = tensor.sources(checkpoints)
    inputs = [c.tensors[name] for c, name in zip(sources, match.inputs, strict=True)]
    job: dict[str, Any] = {"tensor": match.name, "shape": list(inputs[0].shape)}
    faults = dtype_faults(match, sources)
    if faults:
        raise faults[0].error
    found = {entry.dtype for entry in inputs}
    if found <= BUFFERS:
        merge = {"kind": "copy", "inputs": references}
        return {**job, "out_dtype": inputs[0].dtype, "merge": merge}, None
    dtypes = dtypes_of(((t.dtype, t.plain_dtype) for t in inputs), config.dtype, config.out_dtype)
    resolved = resolve_options(config.method, tensor)
    merge = lower(resolved, dtypes)
    return {**job, "out_dtype": STORED_NAMES[dtypes.output], "merge": merge}, resolved


def resolve_options(method: Method, tensor: OutputTensor) -> ResolvedTensor:
    """A tensor with the value that every option takes for it.

    Raises:
        InputError: An option has no value.
    """
    base = None
    inputs = []
    each = []
    own = [key for key, option in method.options.items() if option.per_input]
    for source, number, stored, name in zip(
        tensor.piece.sources, tensor.numbers, tensor.match.inputs, tensor.names, strict=True
    ):
        reference = {"model": number, "tensor": stored}
        if source.path == tensor.piece.base:
            base = reference
            continue
        inputs.append((source.path, reference))
        scopes = (source.parameters, *tensor.scopes)
        each.append(
            {key: resolve(method, key, scopes, name, tensor.depth, source.path) for key in own}
        )
    name = tensor.match.name
    shared = {
        key: resolve(method, key, tensor.scopes, name, tensor.depth)
        for key in method.options
        if key not in own
    }
    return ResolvedTensor(name, method, base, inputs, shared, each)


def dtype_faults(match: Match, sources: list[Checkpoint]) -> list[Fault]:
    """Every input of a match that cannot be merged for its dtype."""
    tensors = [c.tensors[name] for c, name in zip(sources, match.inputs, strict=True)]
    buffers = {tensor.dtype for tensor in tensors} <= BUFFERS
    first = tensors[0].dtype
    faults = []
    for checkpoint, name, stored in zip(sources, match.inputs, tensors, strict=True):
        if buffers and stored.dtype != first:
            expected = f"{first} as in `{sources[0].name}`"
            hint = "buffers are copied, so all models must have the same"
        elif not buffers and stored.dtype not in FLOATS:
            expected = "F32, BF16 or F16"
            hint = "convert the checkpoint to a floating-point dtype first"
        else:
            continue
        error = InputError(
            f"`{checkpoint.path / stored.file}`: tensor `{name}`: expected dtype {expected},"
            f" found {stored.dtype}",
            hint,
        )
        faults.append(Fault("dtype", checkpoint.name, name, error))
    return faults
