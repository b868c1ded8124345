"""One output tensor's job in the plan: dtypes checked, every option resolved."""

from collections.abc import Sequence
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import BUFFERS, FLOATS, STORED_NAMES, TORCH_NAMES, WIDE
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.config.config import MergeConfig
from mergeplan.config.methods import METHODS, Method
from mergeplan.config.resolve import resolve
from mergeplan.config.scopes import Settings
from mergeplan.errors import InputError, raise_all
from mergeplan.planning.document import Copy, Job
from mergeplan.planning.lowering import (
    Dtypes,
    ResolvedTensor,
    dtypes_of,
    is_wide,
    lower,
    sums_alone,
    uncopied,
)
from mergeplan.planning.outputs import OutputTensor
from mergeplan.planning.pairing import Fault, Match

# Options that take one value for all tensors, by slice and source; see `resolve_options`.
Settled = dict[tuple[int, str | None], dict[str, Any]]


def make_job(
    config: MergeConfig,
    tensor: OutputTensor,
    checkpoints: list[Checkpoint],
    settled: Settled | None = None,
) -> tuple[Job, ResolvedTensor | None]:
    """One tensor's job in the plan, and what it came from; buffers have no options.

    Args:
        checkpoints: Those of `config.models`.
        settled: As for `resolve_options`.

    Raises:
        InputError: A dtype or an option does not fit.
    """
    match = tensor.match
    inputs = tensor.operands(checkpoints)
    shape = inputs[0].shape
    if tensor.computed is None:
        faults = dtype_faults(match, tensor.sources(checkpoints))
        if faults:
            raise faults[0].error
    found = {entry.dtype for entry in inputs}
    if found <= BUFFERS:
        copied = Copy(tuple(entry.reference for entry in inputs))
        return Job(match.name, shape, inputs[0].dtype, copied, tensor.parts or None), None
    dtypes = dtypes_of(((t.dtype, t.plain_dtype) for t in inputs), config.dtype, config.out_dtype)
    if "C64" in found:
        dtypes = Dtypes(*[TORCH_NAMES["C64"]] * 3)
    if is_wide(dtypes) and (tensor.computed is not None or not sums_alone(config.method)):
        raise _too_wide(config.method, tensor, checkpoints)
    references = [entry.reference for entry in inputs]
    resolved = resolve_options(config.method, tensor, references, settled)
    merge = lower(resolved, dtypes)
    if isinstance(merge, Copy) and tensor.computed is not None:
        merge = uncopied(merge, dtypes)
    out_dtype = STORED_NAMES[dtypes.output]
    return Job(match.name, shape, out_dtype, merge, tensor.parts or None), resolved


def _too_wide(method: Method, tensor: OutputTensor, checkpoints: list[Checkpoint]) -> InputError:
    """Why a method cannot merge a tensor in float64, or a complex one."""
    both = zip(tensor.sources(checkpoints), tensor.match.inputs, strict=True)
    where, dtype = next(
        (f"`{c.path / c.tensors[name].file}`: tensor `{name}`", c.tensors[name].dtype)
        for c, name in both
        if c.tensors[name].dtype in WIDE
    )
    sums = " and ".join(f"`{one.name}`" for one in METHODS.values() if sums_alone(one))
    found = f"`merge_method: {method.name}`"
    if tensor.computed is not None:
        found = "rows or experts that are put together before"
    way_out = "set `dtype: float32`" + ("" if tensor.computed else ", or take one of these methods")
    return InputError(
        f"{where}: {dtype} is merged as it is by {sums}, found {found}",
        way_out if dtype == "F64" else "take one of these methods: complex numbers have no signs",
    )


def resolve_options(
    method: Method,
    tensor: OutputTensor,
    references: Sequence[TensorRef],
    settled: Settled | None = None,
) -> ResolvedTensor:
    """A tensor with the value that every option takes for it.

    Args:
        references: What goes in from each of its sources.
        settled: Filled and used where no filter and no gradient makes tensors differ: a large model
            has a hundred thousand of them.

    Raises:
        InputError: An option has no value.
    """
    settled = {} if settled is None else settled
    base = None
    inputs = []
    each = []
    faults: list[InputError] = []
    own = [key for key, option in method.options.items() if option.per_input]
    for source, reference, name in zip(tensor.piece.sources, references, tensor.names, strict=True):
        if source.path == tensor.piece.base:
            base = reference
            continue
        inputs.append((source.path, reference))
        scopes = (source.parameters, *tensor.scopes)
        try:
            each.append(_values(method, own, scopes, name, tensor, source.path, settled))
        except InputError as error:  # of each model that lacks an option
            faults.append(error)
    if faults:
        raise_all(faults)
    name = tensor.match.name
    rest = [key for key in method.options if key not in own]
    shared = _values(method, rest, tensor.scopes, name, tensor, None, settled)
    return ResolvedTensor(name, method, base, inputs, shared, each)


def _values(
    method: Method,
    keys: list[str],
    scopes: tuple[Settings, ...],
    name: str,
    tensor: OutputTensor,
    model: str | None,
    settled: Settled,
) -> dict[str, Any]:
    place = id(tensor.piece), model
    if place in settled:
        return settled[place]
    found = {key: resolve(method, key, scopes, name, tensor.depth, model) for key in keys}
    if not any(isinstance(settings.get(key), tuple) for settings in scopes for key in keys):
        settled[place] = found
    return found


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
        elif not buffers and stored.dtype not in (*FLOATS, *WIDE):
            expected = "F32, BF16, F16 or F64"
            hint = "convert the checkpoint to a floating-point dtype first"
        elif (stored.dtype == "C64") != (first == "C64"):
            expected = f"{first} as in `{sources[0].name}`"
            hint = "complex and real tensors cannot be merged with each other"
        else:
            continue
        error = InputError(
            f"`{checkpoint.path / stored.file}`: tensor `{name}`: expected dtype {expected},"
            f" found {stored.dtype}",
            hint,
        )
        faults.append(Fault("dtype", checkpoint.name, name, error))
    return faults
