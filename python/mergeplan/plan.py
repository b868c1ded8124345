"""From a config and headers to the plan: one job for each output tensor, every option resolved."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

from mergeplan.checkpoints import Checkpoint, Fault, Match, match_tensors, open_checkpoint
from mergeplan.config import MergeConfig
from mergeplan.errors import InputError
from mergeplan.lowering import Dtypes, ResolvedTensor, lower
from mergeplan.settings import depths_of, resolve

VERSION = 1
TORCH_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
STORED_NAMES = {name: stored for stored, name in TORCH_NAMES.items()}
# Integers and booleans are buffers: copied where all inputs agree, never averaged.
BUFFERS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}


@dataclass(frozen=True)
class Companions:
    """What lies beside the weights, where it is not simply the donor's.

    Attributes:
        config: The content of `config.json`.
        files: Further files by name.
        copies_tokenizer: Whether the donor's tokenizer is copied too.
    """

    config: dict[str, Any]
    files: dict[str, bytes]
    copies_tokenizer: bool


class Fallback(Protocol):
    """Who computes the tensors that the core cannot: those whose jobs are `given`.

    Attributes:
        tensors: Their names.
        n_bytes: Bytes of all of them.
        memory_bytes: Anonymous memory that computing one may take.
    """

    @property
    def tensors(self) -> list[str]: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    def element_bytes(self, name: str) -> int:
        """Bytes of an element of a tensor."""

    def compute(self, name: str) -> memoryview:
        """The bytes of a tensor, little-endian and row-major."""


@dataclass(frozen=True)
class MergePlan:
    """What Rust is asked to do, and what the files around the weights need to know.

    Attributes:
        data: The plan as JSON-ready data; see `rust/core/src/plan.rs`.
        checkpoints: The inputs, in the order of the config.
        donor: Whose config and tokenizer the output gets.
        out_dtype: Torch name of the output's floating-point tensors, by elements the most common.
        unties_head: Whether the output has a head of its own while some input ties it.
        companions: `None` where they are the donor's.
        fallback: `None` where the core computes everything.
    """

    data: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    donor: Checkpoint
    out_dtype: str
    unties_head: bool
    warnings: tuple[str, ...]
    companions: Companions | None = None
    fallback: Fallback | None = field(default=None, compare=False)

    def json(self) -> str:
        """Canonical text: the same plan gives the same bytes."""
        return canonical_json(self.data)


def canonical_json(data: dict[str, Any]) -> str:
    """JSON with one spelling for equal data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def build_plan(
    config: MergeConfig, *, seed: int, max_shard_bytes: int, allow_nonfinite: bool = False
) -> MergePlan:
    """Open the headers of all models and resolve every option of every tensor.

    Raises:
        InputError: Headers, shapes, dtypes or options that do not fit; no weight is read.
    """
    if config.needs_mergekit or config.is_sliced:
        from mergeplan.mergekit_adapter import plan_by_mergekit

        return plan_by_mergekit(
            config, seed=seed, max_shard_bytes=max_shard_bytes, allow_nonfinite=allow_nonfinite
        )
    checkpoints = [open_checkpoint(model.path) for model in config.models]
    refuse_duplicates(checkpoints)
    paths = [model.path for model in config.models]
    donor = checkpoints[paths.index(config.donor)]
    matches, warnings = match_tensors(checkpoints, donor)
    if not matches:
        raise InputError(f"model `{donor.name}` has no tensors: nothing to merge")
    depths = depths_of([match.name for match in matches])
    jobs = [make_job(config, match, checkpoints, depths[match.name]) for match in matches]
    data = {
        "version": VERSION,
        "seed": seed,
        "allow_nonfinite": allow_nonfinite,
        "max_shard_bytes": max_shard_bytes,
        "models": [str(checkpoint.path) for checkpoint in checkpoints],
        "jobs": jobs,
    }
    return MergePlan(
        data=data,
        checkpoints=tuple(checkpoints),
        donor=donor,
        out_dtype=most_common_dtype((job["out_dtype"], prod(job["shape"])) for job in jobs),
        unties_head=any(match.tied for match in matches),
        warnings=(*config.warnings, *warnings),
    )


def refuse_duplicates(checkpoints: list[Checkpoint]) -> None:
    seen: dict[str, str] = {}
    for checkpoint in checkpoints:
        other = seen.setdefault(str(checkpoint.path), checkpoint.name)
        if other != checkpoint.name:
            raise InputError(f"models `{other}` and `{checkpoint.name}` are the same folder")


def make_job(
    config: MergeConfig, match: Match, checkpoints: list[Checkpoint], depth: float
) -> dict[str, Any]:
    """One tensor's job in the plan.

    Raises:
        InputError: A dtype or an option does not fit.
    """
    tensors = [c.tensors[name] for c, name in zip(checkpoints, match.inputs, strict=True)]
    job: dict[str, Any] = {"tensor": match.name, "shape": list(tensors[0].shape)}
    faults = dtype_faults(match, checkpoints)
    if faults:
        raise faults[0].error
    found = {tensor.dtype for tensor in tensors}
    if found <= BUFFERS:
        inputs = [{"model": i, "tensor": name} for i, name in enumerate(match.inputs)]
        return {**job, "out_dtype": tensors[0].dtype, "merge": {"kind": "copy", "inputs": inputs}}
    promoted = TORCH_NAMES[_promote(found)]
    working = config.dtype or promoted
    dtypes = Dtypes(promoted, working, config.out_dtype or working)
    merge = lower(_resolved(config, match, depth), dtypes)
    return {**job, "out_dtype": STORED_NAMES[dtypes.output], "merge": merge}


def _resolved(config: MergeConfig, match: Match, depth: float) -> ResolvedTensor:
    """A match with the value that every option takes for it."""
    base = None
    inputs = []
    each = []
    options = config.method.options
    for number, (model, tensor) in enumerate(zip(config.models, match.inputs, strict=True)):
        reference = {"model": number, "tensor": tensor}
        if model.path == config.compared_with:
            base = reference
            continue
        inputs.append((model.path, reference))
        own = [key for key, option in options.items() if option.per_input]
        each.append({key: resolve(config, key, match.name, depth, model) for key in own})
    shared = [key for key, option in options.items() if not option.per_input]
    values = {key: resolve(config, key, match.name, depth) for key in shared}
    return ResolvedTensor(match.name, config.method, base, inputs, values, each)


def dtype_faults(match: Match, checkpoints: list[Checkpoint]) -> list[Fault]:
    """Every tensor of a match that cannot be merged for its dtype."""
    tensors = [c.tensors[name] for c, name in zip(checkpoints, match.inputs, strict=True)]
    buffers = {tensor.dtype for tensor in tensors} <= BUFFERS
    first = tensors[0].dtype
    faults = []
    for checkpoint, name, tensor in zip(checkpoints, match.inputs, tensors, strict=True):
        if buffers and tensor.dtype != first:
            expected = f"{first} as in `{checkpoints[0].name}`"
            hint = "buffers are copied, so all models must have the same"
        elif not buffers and tensor.dtype not in TORCH_NAMES:
            expected = "F32, BF16 or F16"
            hint = "convert the checkpoint to a floating-point dtype first"
        else:
            continue
        error = InputError(
            f"`{checkpoint.path / tensor.file}`: tensor `{name}`: expected dtype {expected},"
            f" found {tensor.dtype}",
            hint,
        )
        faults.append(Fault("dtype", checkpoint.name, name, error))
    return faults


def _promote(dtypes: set[str]) -> str:
    """The dtype that holds all of them, as in torch: bfloat16 and float16 meet in float32."""
    return next(iter(dtypes)) if len(dtypes) == 1 else "F32"


def most_common_dtype(amounts: Iterable[tuple[str, int]]) -> str:
    """Torch name of the floating-point dtype that holds most.

    Args:
        amounts: safetensors' name of a dtype, and how much has it; buffers do not count.
    """
    totals: dict[str, int] = {}
    for stored, amount in amounts:
        name = TORCH_NAMES.get(stored)
        if name is not None:
            totals[name] = totals.get(name, 0) + amount
    return max(sorted(totals), key=lambda name: totals[name], default="float32")
