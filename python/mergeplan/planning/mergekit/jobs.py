"""mergekit's tasks as jobs of our core; what the core cannot do is a job that is `given`."""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mergekit import merge_methods
from mergekit.io.tasks import GatherTensors, SaveTensor
from mergekit.merge_methods.base import OptionalTensorPolicy, ParameterScope
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.tokenizer import PermutedVocabulary, TokenizerInfo
from mergekit.tokenizer.truncate import TruncatedVocabulary

from mergeplan.checkpoints.dtypes import BUFFERS, FLOATS, STORED_NAMES
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.config.methods import KNOWN
from mergeplan.errors import InputError, MissingInputError
from mergeplan.planning.document import Copy, Given, Job, Merge, Part
from mergeplan.planning.lowering import Dtypes, ResolvedTensor, dtypes_of, lower, uncopied
from mergeplan.planning.mergekit.executor import FallbackTensor
from mergeplan.planning.mergekit.gathering import FoundTensor, ModelTensors
from mergeplan.planning.mergekit.models import OpenModel
from mergeplan.planning.mergekit.vocabulary import Vocabulary
from mergeplan.planning.rows import RowMap, Stack, cut_to_the_smallest

Tensors = dict[OpenModel, FoundTensor]
_LAYER = re.compile(r"\.\d+\.")

# What mergekit can merge, beside what our core can.
_FLOATS = {*FLOATS, "F64"}
# Methods whose result is float32 or more where mergekit computes them.
_FLOAT32_RESULTS = ("arcee_fusion", "ramplus_tl")


@dataclass
class JobMaker:
    """Makes jobs, and notes what is needed beside them.

    Attributes:
        dtype: The config's, without prefix, or `None`.
        tokens: The output's tokenizer, where the config asks for one.
        names_of: Whose names the output has where mergekit renames or packs; else mergekit's.
        given: The tensors that mergekit must compute, by name.
        cut_to: Tokens that are left where vocabularies were cut to the smallest.
        unties_head: Whether some model's embedding serves for a head that others have.
        skipped: Tensors of each model that mergekit's method leaves out, because others lack them.
        resolved: The tensors that our core merges, with the value of every option.
    """

    inputs: ModelTensors
    dtype: str | None
    tokens: TokenizerInfo | None
    names_of: OpenModel | None = None
    given: dict[str, FallbackTensor] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cut_to: int | None = None
    unties_head: bool = False
    skipped: dict[OpenModel, list[str]] = field(default_factory=dict)
    resolved: list[ResolvedTensor] = field(default_factory=list)
    _known: dict[Any, list[RowMap]] = field(default_factory=dict)

    def job(self, save: SaveTensor) -> tuple[str, Job] | None:
        """The job of an output tensor and what mergekit sorts it by; `None` where none is written.

        Raises:
            InputError: Tensors are missing or do not fit, or an option does not.
        """
        task = save.tensor_task
        found = self._gather(task)
        if not found:
            self.warnings.append(f"`{save.tensor_name}` is in none of the models, and left out")
            return None
        method = _method_for(task, list(found))
        if method is None:
            for model, tensor in found.items():
                self.skipped.setdefault(model, []).append(tensor.name)
            return None
        order = max(tensor.label for tensor in found.values())
        found = self._fit_vocabulary(task, found)
        shape = _one_shape(task, found)
        make = partial(Job, save.tensor_name, shape, parts=self._parts(save, found, shape))
        stored = {tensor.dtype for tensor in found.values()}
        _check_dtypes(save.tensor_name, found)
        if stored <= BUFFERS:
            return order, make(stored.pop(), Copy(_references(found)))
        forced = [weight.force_dtype for weight in _gathered(task).weight_info.values()]
        dtypes = dtypes_of(
            ((tensor.dtype, tensor.plain_dtype) for tensor in found.values()),
            _plain(forced[0]) or self.dtype,
            _plain(save.dtype),
        )
        out_dtype = STORED_NAMES[dtypes.output]
        if self._is_ours(method, found, dtypes):
            return order, make(out_dtype, self._lower(method, task, found, dtypes))
        if method in KNOWN and KNOWN[method].code is not None:
            raise InputError(
                f"tensor `{save.tensor_name}`: `{method}` merges in float32 at most, found"
                f" {dtypes.working}, and {dtypes.output} to be written",
                "say `dtype: float32`, and `out_dtype` for what is written",
            )
        if save.dtype is None and method in _FLOAT32_RESULTS and dtypes.working in FLOATS.values():
            out_dtype = "F32"
        given = FallbackTensor(save, out_dtype, shape, len(found), dtypes.working)
        self.given[save.tensor_name] = given
        return order, make(out_dtype, Given())

    def _parts(
        self, save: SaveTensor, found: Tensors, shape: tuple[int, ...]
    ) -> tuple[Part, ...] | None:
        """What the donor's files call an output tensor or its pieces, numbered as the output is."""
        if self.names_of is None:
            return None
        model = self.names_of if self.names_of in found else next(iter(found))
        parts = found[model].parts
        old = _gathered(save.tensor_task).weight_info[model].name
        renamed = [_with_layer_of(part.tensor, old, save.tensor_name) for part in parts]
        if len(parts) == 1:  # its rows may be another vocabulary's
            return (Part(renamed[0], shape),)
        return tuple(map(Part, renamed, (part.shape for part in parts))) or None

    def _gather(self, task: ExecuteMergeMethodTask) -> Tensors:
        """The tensor of each model that has one, in mergekit's order.

        Raises:
            MissingInputError: A model lacks one that it must have, and that others have.
        """
        weights = _gathered(task).weight_info
        tensors = {model: self.inputs.find(model, weight) for model, weight in weights.items()}
        found = {model: tensor for model, tensor in tensors.items() if tensor is not None}
        for model, weight in weights.items():
            if found and model not in found and not weight.optional:
                raise MissingInputError(
                    f"model `{self.inputs.name_of(model)}`: tensor `{weight.name}` is missing,"
                    " which its architecture has",
                    "all models of a merge must have the same architecture",
                )
        tied = {name for weight in weights.values() for name in weight.tied_names or ()}
        names = {tensor.label for tensor in found.values()}
        self.unties_head |= bool(tied & names and names - tied)
        return found

    def _fit_vocabulary(self, task: ExecuteMergeMethodTask, found: Tensors) -> Tensors:
        """The tensors with the rows of the output's vocabulary, where they hold a row per token."""
        step = task.gather_tensors
        if isinstance(step, TruncatedVocabulary):
            axis = step.weight_info.vocabulary_axis
            n_rows = min(tensor.shape[axis] for tensor in found.values())
            if any(tensor.shape[axis] > n_rows for tensor in found.values()):
                self.cut_to = n_rows
            heights = tuple(tensor.shape[axis] for tensor in found.values())
            maps = cut_to_the_smallest(Stack(None, (), heights))
        elif isinstance(step, PermutedVocabulary):
            axis = step.vocabulary_axis
            heights = tuple(tensor.shape[axis] for tensor in found.values())
            maps = self._row_maps(step, tuple(found), heights)
        else:
            return found
        rows_out = maps[0].n_rows
        if axis or any(tensor.reference is None for tensor in found.values()):
            return {model: tensor.without_place(axis, rows_out) for model, tensor in found.items()}
        both = zip(found, maps, strict=True)
        return {model: self.inputs.with_rows(model, found, rows) for model, rows in both}

    def _row_maps(
        self, step: PermutedVocabulary, models: tuple[OpenModel, ...], heights: tuple[int, ...]
    ) -> list[RowMap]:
        """The rows of each model; embedding and head mostly have the same."""
        key = (step.base_model, models, heights)
        if key not in self._known:
            wished = dict((step.tokens or {}).items())
            padded_to = step.pad_to_multiple_of
            base = step.base_model
            vocabulary = Vocabulary(self.tokens, wished, models, heights, base, padded_to)
            unknown = vocabulary.unknown_tokens()
            if unknown:
                self.warnings.append(
                    f"{len(unknown)} tokens are in no model's tokenizer: their rows are zeros,"
                    f" the first `{unknown[0]}`"
                )
            self._known[key] = [vocabulary.rows_of(model) for model in range(len(models))]
        return self._known[key]

    def _is_ours(self, method: str, found: Tensors, dtypes: Dtypes) -> bool:
        """Whether our core does it."""
        return (
            method in KNOWN
            and {dtypes.inputs, dtypes.working, dtypes.output} <= {*FLOATS.values()}
            and all(tensor.reference is not None for tensor in found.values())
        )

    def _lower(
        self, method: str, task: ExecuteMergeMethodTask, found: Tensors, dtypes: Dtypes
    ) -> Merge:
        """The arithmetic, from the values that mergekit resolved."""
        ours = KNOWN[method]
        base = task.base_model if ours.base != "none" else None
        others = [(model, tensor) for model, tensor in found.items() if model != base]
        shared: dict[str, Any] = {}
        each: list[dict[str, Any]] = [{"scale": None} for _ in others]
        if method == task.method_name:
            parameters = merge_methods.get(method).spec.parameters
            own = [p.name for p in parameters if p.scope != ParameterScope.SHARED]
            shared = dict(task.parameters.items())
            each = [{key: task.input_parameters[m][key] for key in own} for m, _ in others]
        tensor = ResolvedTensor(
            name=task.output_weight.name,
            method=ours,
            base=found[base].reference if base in found else None,
            inputs=list(zip(map(str, dict(others)), _references(dict(others)), strict=True)),
            shared=shared,
            each=each,
        )
        self.resolved.append(tensor)
        merge = lower(tensor, dtypes)
        if isinstance(merge, Copy) and self.inputs.is_made(merge.inputs[0]):
            return uncopied(merge, dtypes)
        return merge


def _with_layer_of(name: str, old: str, new: str) -> str:
    """A tensor's name for the layer of the output tensor `new`, which its model calls `old`."""
    before, after = (_LAYER.search(one) for one in (old, new))
    if before is None or after is None:
        return name
    return _LAYER.sub(after[0], name, count=1)


def _references(found: Tensors) -> tuple[TensorRef, ...]:
    """Of tensors that our core can read, all of them."""
    return tuple(tensor.reference for tensor in found.values() if tensor.reference is not None)


def _gathered(task: ExecuteMergeMethodTask) -> GatherTensors:
    step = task.gather_tensors
    return step if isinstance(step, GatherTensors) else step.gather_tensors


def _method_for(task: ExecuteMergeMethodTask, models: list[OpenModel]) -> str | None:
    """The method for the models that have a tensor: where some lack it, mergekit may copy or skip.

    Raises:
        InputError: Too few have it.
    """
    method = merge_methods.get(task.method_name)
    if task.output_weight.optional and len(models) < len(task.model_order):
        policy = method.spec.optional_tensor_policy
        alone = len(models) == 1
        from_base = alone and models[0] == task.base_model
        if alone and policy == OptionalTensorPolicy.PASSTHROUGH_SINGLETON:
            return "passthrough"
        if from_base and policy == OptionalTensorPolicy.PASSTHROUGH_BASE_SINGLETON:
            return "passthrough"
        if policy == OptionalTensorPolicy.BASE_OR_SKIP:
            if from_base:
                return "passthrough"
            if len(models) < method.spec.contract.min_inputs:
                return None
    try:
        method.validate_inputs(models, task.base_model, group_name=task.output_weight.name)
    except ValueError as error:
        lacking = [model for model in task.model_order if model not in models]
        names = ", ".join(f"`{model}`" for model in lacking)
        raise InputError(
            f"tensor `{task.output_weight.name}` is missing in {names}, and"
            f" `{task.method_name}` cannot do without: {error}"
        ) from error
    return str(task.method_name)


def _one_shape(task: ExecuteMergeMethodTask, found: Tensors) -> tuple[int, ...]:
    shapes = {tensor.shape: model for model, tensor in found.items()}
    if len(shapes) == 1:
        return next(iter(shapes))
    first, second, *_ = shapes.items()
    hint = "all models of a merge must have the same shapes"
    if task.output_weight.vocabulary_axis is not None:
        hint = "the vocabularies differ; `tokenizer_source: base` or `union` brings them together"
    raise InputError(
        f"model `{second[1]}`: tensor `{task.output_weight.name}`: expected shape {list(first[0])}"
        f" as in `{first[1]}`, found {list(second[0])}",
        hint,
    )


def _check_dtypes(name: str, found: Tensors) -> None:
    """Refuse dtypes that nobody can merge: packed floats, and integers that differ."""
    stored = {tensor.dtype for tensor in found.values()}
    if stored <= _FLOATS or (len(stored) == 1 and stored <= BUFFERS):
        return
    which = ", ".join(f"`{model}` {tensor.dtype}" for model, tensor in found.items())
    raise InputError(
        f"tensor `{name}`: expected a floating-point dtype, or the same integers, found {which}",
        "convert the checkpoint to a floating-point dtype first",
    )


def _plain(dtype: str | None) -> str | None:
    return dtype.removeprefix("torch.") if dtype else None
