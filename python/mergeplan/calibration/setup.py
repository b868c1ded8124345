"""How merges are measured, and on which texts."""

from dataclasses import dataclass, field, replace
from typing import Any

from mergeplan.errors import InputError
from mergeplan.evaluation.halves import cut_of
from mergeplan.evaluation.harness import Tasks
from mergeplan.evaluation.hashes import texts_sha256
from mergeplan.evaluation.loading import (
    context_of,
    import_transformers,
    load_model_config,
    load_tokenizer,
)
from mergeplan.evaluation.measure import Measure
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.own_documents import OwnDocuments, own_sha256, read_files
from mergeplan.evaluation.task_items import TaskItems
from mergeplan.evaluation.texts import Texts
from mergeplan.merging.options import MergeOptions
from mergeplan.pool.pool import Pool


@dataclass(frozen=True)
class Setup:
    """How merges are measured.

    Attributes:
        dtype: Of the arithmetic of the evaluation; `auto` for float32 on a CPU (for a calibration
            bfloat16 where no decision changes, see `dtype_trial`) and the base's own elsewhere.
        device: `auto`, `cpu` or `cuda`.
        threads: For merging and evaluating; `None` for one a usable core.
        memory_limit: Bytes that merging may take beside the model; `None` for the default.
        lora_exact, allow_vocabulary_mismatch: As in `MergeOptions`.
        tasks: Of lm-evaluation-harness, to be run on each merge beside: names, or YAML files.
        sharers: Processes that do this on one machine, and share the memory that it could give.
    """

    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    memory_limit: int | None = None
    lora_exact: bool = False
    allow_vocabulary_mismatch: bool = False
    tasks: tuple[str, ...] = ()
    sharers: int = 1

    def on_cpu(self) -> bool:
        """Whether merges are scored on the CPU.

        Raises:
            MissingInputError: torch or transformers is not installed.
        """
        import_transformers()
        import torch

        return self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available())

    def merging(self, model: Any = None) -> MergeOptions:
        """How to merge into a model: where it is, but on a CPU, or without one, by the core."""
        device = None if model is None else next(model.parameters()).device
        return MergeOptions(
            threads=self.threads,
            memory_limit=self.memory_limit,
            device=None if device is None or device.type == "cpu" else str(device),
            lora_exact=self.lora_exact,
            allow_vocabulary_mismatch=self.allow_vocabulary_mismatch,
        )

    def streaming(self) -> MergeOptions:
        """How to stream experts past gradients: in what a merge takes by default, for the limit is
        that of gradients and all."""
        return replace(self.merging(), memory_limit=None)


def prepare_texts(pool: Pool, size: int, evaluation: EvaluationOptions) -> Measure:
    """The pool's texts, encoded for the models of one size, or what a scorer is given of them.

    Raises:
        InputError: The base has no tokenizer or config, or a text or the scorer is at fault.
    """
    if evaluation.scorer is not None:
        return OwnDocuments.prepare(pool.data, evaluation)
    base = pool.sizes[size].base
    context = context_of(load_model_config(base))
    return Texts.prepare(pool.data, load_tokenizer(base), evaluation, context=context)


def measure_of(pool: Pool, size: int, setup: Setup, tasks: Tasks | None) -> Measure:
    """What decides at one size: losses, a scorer's measure, or tasks where there is nothing else.

    Raises:
        InputError: As for `prepare_texts`, or tasks cannot decide.
    """
    if tasks is None or pool.data or setup.evaluation.scorer is not None:
        return prepare_texts(pool, size, setup.evaluation)
    if setup.evaluation.half != "all":
        raise InputError(
            "`half`: items of tasks have no halves", "give the pool `data`, or leave it out"
        )
    return TaskItems.of(tasks)


def hash_texts(pool: Pool, size: int, evaluation: EvaluationOptions) -> str:
    """`sha256` of those texts, without encoding them.

    Raises:
        InputError: As for `prepare_texts`.
    """
    files = read_files(pool.data, evaluation.scorer)
    if evaluation.scorer is not None:
        return own_sha256(files, evaluation)
    base = pool.sizes[size].base
    deciding = evaluation.deciding(context_of(load_model_config(base)), cut_of(files))
    return texts_sha256(files, load_tokenizer(base), deciding)
