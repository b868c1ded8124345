"""From a config and headers to the plan: one job for each output tensor, every option resolved."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Protocol

from mergeplan.checkpoints import Checkpoint, models_data, plan_models
from mergeplan.config import MergeConfig
from mergeplan.dtypes import BUFFERS, FLOATS, STORED_NAMES
from mergeplan.errors import InputError
from mergeplan.lowering import ResolvedTensor, dtypes_of, lower
from mergeplan.methods import Method
from mergeplan.opening import open_checkpoint
from mergeplan.outputs import OutputTensor, find_outputs
from mergeplan.pairing import Fault, Match, left_out
from mergeplan.plan_options import PlanOptions
from mergeplan.settings import resolve
from mergeplan.slicing import beyond_names, sliced_config

VERSION = 1


@dataclass(frozen=True)
class Companions:
    """What lies beside the weights and `config.json`, where it is not simply the donor's.

    Attributes:
        files: Further files by name.
        copies_tokenizer: Whether the donor's tokenizer is copied too.
    """

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
        data: The plan as JSON-ready data; see `rust/core/src/plan`.
        checkpoints: The inputs, in the order of the config.
        donor: Whose config and tokenizer the output gets.
        model_config: The output's config.json, but for dtype and tying; empty where there is none.
        out_dtype: Torch name of the output's floating-point tensors, by elements the most common.
        unties_head: Whether the output has a head of its own while some input ties it.
        companions: `None` where they are the donor's.
        fallback: `None` where the core computes everything.
        resolved: The tensors that the core merges, with the value of every option, where the
            options of the plan ask for it.
    """

    data: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    donor: Checkpoint
    model_config: dict[str, Any]
    out_dtype: str
    unties_head: bool
    warnings: tuple[str, ...]
    companions: Companions | None = None
    fallback: Fallback | None = field(default=None, compare=False)
    resolved: tuple[ResolvedTensor, ...] = ()

    def json(self) -> str:
        """Canonical text: the same plan gives the same bytes."""
        return canonical_json(self.data)

    @property
    def stored(self) -> list[Checkpoint]:
        """The checkpoints that are read, in the order of the plan's models."""
        return [model for model in plan_models(self.checkpoints) if not model.made]

    @property
    def input_paths(self) -> list[Path]:
        """Every folder and file that is read, and that no output may lie in."""
        return [path for model in self.stored for path in (model.path, *model.files)]

    def input_dtypes(self, job: dict[str, Any]) -> set[str]:
        """safetensors' names of the dtypes that go into a job of the core; empty for others."""
        merge = job["merge"]
        base = [merge["base"]] if merge.get("base") else []
        references = [*merge.get("inputs", []), *base]
        return set().union(*(self._dtypes(reference) for reference in references))

    def _dtypes(self, reference: dict[str, Any]) -> set[str]:
        number, name = reference["model"], reference["tensor"]
        if number < len(self.checkpoints):
            return {self.checkpoints[number].tensors[name].dtype}
        how = self.data["models"][number]["derived"][name]
        parts = how.get("tensors") or how.get("parts") or [how]
        return set().union(*map(self._dtypes, parts))


def canonical_json(data: dict[str, Any] | list[Any]) -> str:
    """JSON with one spelling for equal data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def build_plan(
    config: MergeConfig,
    *,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool = False,
    options: PlanOptions | None = None,
) -> MergePlan:
    """Open the headers of all models and resolve every option of every tensor.

    Raises:
        InputError: Headers, shapes, dtypes or options that do not fit; no weight is read.
    """
    head = {
        "seed": seed,
        "max_shard_bytes": max_shard_bytes,
        "allow_nonfinite": allow_nonfinite,
    }
    options = options or PlanOptions()
    if config.needs_mergekit or options.unsafe_truncate_embeddings:
        return _plan_by_mergekit(config, config.needs_mergekit, options, head)
    checkpoints = [open_checkpoint(model.path, options.opening) for model in config.models]
    refuse_duplicates(checkpoints)
    why = beyond_names(config, checkpoints)
    if why:
        return _plan_by_mergekit(config, why, options, head)
    paths = [model.path for model in config.models]
    donor = checkpoints[paths.index(config.donor)]
    outputs = find_outputs(config, checkpoints)
    if outputs.faults:
        raise outputs.faults[0].error
    if not outputs.tensors:
        raise InputError(f"model `{donor.name}` has no tensors: nothing to merge")
    made = [make_job(config, tensor, checkpoints) for tensor in outputs.tensors]
    jobs = [job for job, _ in made]
    data = {
        **head,
        "version": VERSION,
        "models": models_data(checkpoints),
        "jobs": jobs,
    }
    return MergePlan(
        data=data,
        checkpoints=tuple(checkpoints),
        donor=donor,
        model_config=sliced_config(config, checkpoints, donor)
        if config.is_sliced
        else donor.config,
        out_dtype=most_common_dtype((job["out_dtype"], prod(job["shape"])) for job in jobs),
        unties_head=any(tensor.match.tied for tensor in outputs.tensors),
        warnings=(*config.warnings, *left_out(outputs.extra, donor)),
        resolved=tuple(resolved for _, resolved in made if resolved and options.explain),
    )


def _plan_by_mergekit(
    config: MergeConfig, why: str | None, options: PlanOptions, head: dict[str, Any]
) -> MergePlan:
    from mergeplan.mergekit_adapter import plan_by_mergekit

    return plan_by_mergekit(config, options, why=why, **head)


def refuse_duplicates(checkpoints: list[Checkpoint]) -> None:
    seen: dict[tuple[Path, ...], str] = {}
    for checkpoint in checkpoints:
        other = seen.setdefault(checkpoint.key, checkpoint.name)
        if other != checkpoint.name:
            raise InputError(f"models `{other}` and `{checkpoint.name}` are the same folder")


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


def most_common_dtype(amounts: Iterable[tuple[str, int]]) -> str:
    """Torch name of the floating-point dtype that holds most.

    Args:
        amounts: safetensors' name of a dtype, and how much has it; buffers do not count.
    """
    totals: dict[str, int] = {}
    names = {**FLOATS, "F64": "float64"}  # mergekit's executor writes that too
    for stored, amount in amounts:
        name = names.get(stored)
        if name is not None:
            totals[name] = totals.get(name, 0) + amount
    return max(sorted(totals), key=lambda name: totals[name], default="float32")
