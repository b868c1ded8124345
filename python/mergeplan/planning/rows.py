"""Tensors with a row for each token: found by name and height, and brought to one vocabulary."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergeplan.checkpoints import head_names, heads
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.layers import layer_of
from mergeplan.checkpoints.plan_models import Rows, TensorRef
from mergeplan.errors import InputError
from mergeplan.planning.derived import DerivedModels
from mergeplan.planning.outputs import Operand, OutputTensor

# Sources of a row that is no row of a tensor, as `rust/core/src/plan/models.rs` has them.
ZEROS = -1
MEAN = -2

# What has values for each token in another way than the embedding: a bias along the second axis,
# and Gemma's vectors for each layer, whose vocabulary may be shorter.
_ACROSS = re.compile(r"(^|\.)(final_logits_bias|embed_tokens_per_layer\.weight)$")

Row = tuple[int, int]


@dataclass(frozen=True)
class RowMap:
    """The rows of one model's tensor after it was given the output's vocabulary.

    Attributes:
        sources: For each row the number of the tensor that it comes from, or `ZEROS` or `MEAN`.
        rows: Its row there, or the number of the mean.
        means: The (tensor, row) pairs that each mean is over.
        padding: Further rows, each the mean of all rows before.
        own: Number of the model's own tensor.
    """

    sources: tuple[int, ...]
    rows: tuple[int, ...]
    means: tuple[tuple[Row, ...], ...]
    padding: int
    own: int

    @property
    def n_rows(self) -> int:
        return len(self.rows) + self.padding

    def is_identity(self, n_rows: int) -> bool:
        """Whether the model's own tensor, of `n_rows` rows, is as it was."""
        return (
            not self.padding
            and self.rows == tuple(range(n_rows))
            and all(source == self.own for source in self.sources)
        )

    @property
    def keeps_numbers(self) -> bool:
        """Whether each token of the output has the model's own row of that number."""
        return self.is_identity(len(self.rows))

    def new_numbers(self) -> dict[int, int]:
        """Where the model's own rows are now, by their old numbers."""
        both = enumerate(zip(self.sources, self.rows, strict=True))
        return {row: number for number, (source, row) in both if source == self.own}


@dataclass(frozen=True)
class Stack:
    """The tensors of some models that are one output tensor, as far as rows depend on it.

    Attributes:
        base: Number of the model whose rows stand in where another lacks a token, if any.
        models: Numbers of the models.
        heights: Rows of the tensor of each.
    """

    base: int | None
    models: tuple[int, ...]
    heights: tuple[int, ...]


def all_tokens(n_models: int, base: int | None) -> Stack:
    """A stack without tensors, to ask where each model has each token."""
    return Stack(base, tuple(range(n_models)), (1 << 63,) * n_models)


def embedding_rows(checkpoint: Checkpoint) -> int | None:
    """Rows of a model's input embedding, or `None` where it has none that is known by name."""
    found = heads.embedding(checkpoint)
    return found.shape[0] if found is not None and found.shape else None


def has_row_per_token(name: str, shape: tuple[int, ...], n_rows: int | None) -> bool:
    """Whether a tensor has a row for each token of a model.

    Args:
        n_rows: Rows of the model's embedding.
    """
    return n_rows is not None and shape[:1] == (n_rows,) and head_names.has_row_per_token(name)


def why_rows_must_stay(checkpoint: Checkpoint) -> InputError | None:
    """Why a model's rows cannot be brought to another vocabulary, or `None`."""
    n_rows = embedding_rows(checkpoint)
    hint = "merge without a tokenizer option, if all models have the same vocabulary"
    if n_rows is None:
        known = f"model `{checkpoint.name}` has no embedding that is known by its name"
        return InputError(f"{known}: which rows belong to which token is not known", hint)
    name = next((n for n, t in checkpoint.tensors.items() if _stays(n, t.shape, n_rows)), None)
    if name is not None:
        return InputError(
            f"model `{checkpoint.name}`: tensor `{name}` seems to have values for each token, and"
            " which belong to which is not known",
            hint,
        )
    sizes = sorted(_vocabulary_sizes(checkpoint.config))
    if sizes and n_rows not in sizes:
        # As Mllama's and Moshi's, whose last rows are no tokens of the tokenizer.
        return InputError(
            f"model `{checkpoint.name}`: the embedding has {n_rows} rows, and config.json's"
            f" `vocab_size` is {sizes[-1]}: which rows belong to which token is not known",
            hint,
        )
    return None


def _stays(name: str, shape: tuple[int, ...], n_rows: int) -> bool:
    """Whether a tensor has values for each token that cannot be moved to other numbers.

    Outside of the layers nothing else is as high as the embedding.
    """
    if _ACROSS.search(name):
        return True
    high = shape[:1] == (n_rows,) and layer_of(name) is None
    return high and not head_names.has_row_per_token(name)


def _vocabulary_sizes(config: Mapping[str, Any]) -> set[int]:
    found: set[int] = set()
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _vocabulary_sizes(value)
        elif key == "vocab_size" and isinstance(value, int):
            found.add(value)
    return found


def stack_of(
    tensor: OutputTensor, checkpoints: Sequence[Checkpoint], base_model: str | None
) -> Stack:
    """What the rows of an output tensor depend on.

    Args:
        base_model: Path of the config's base.
    """
    paths = [source.path for source in tensor.piece.sources]
    base = tensor.piece.base or base_model
    return Stack(
        base=tensor.numbers[paths.index(base)] if base in paths else None,
        models=tensor.numbers,
        heights=tuple(o.shape[0] for o in tensor.operands(list(checkpoints))),
    )


def cut_to_the_smallest(stack: Stack) -> list[RowMap]:
    """The first rows of each tensor, as many as the shortest has."""
    n_rows = min(stack.heights)
    rows = tuple(range(n_rows))
    return [RowMap((place,) * n_rows, rows, (), 0, place) for place in range(len(stack.heights))]


def with_rows(
    tensor: OutputTensor,
    checkpoints: Sequence[Checkpoint],
    maps: Sequence[RowMap],
    derived: DerivedModels,
) -> OutputTensor:
    """An output tensor whose inputs have the rows of one vocabulary.

    Args:
        maps: One for each source; a tensor's number in it is its source's place.
        derived: Gets the tensors that are computed.
    """
    operands = tensor.operands(list(checkpoints))
    made = tuple(
        _with_rows(number, operands, rows, derived)
        for number, rows in zip(tensor.numbers, maps, strict=True)
    )
    return tensor if made == operands else replace(tensor, computed=made)


def _with_rows(
    number: int, operands: Sequence[Operand], rows: RowMap, derived: DerivedModels
) -> Operand:
    own = operands[rows.own]
    if rows.is_identity(own.shape[0]):
        return own
    name = f"{own.reference.tensor} (rows)"
    made = rows_of([operand.reference for operand in operands], rows)
    shape = (rows.n_rows, *own.shape[1:])
    return replace(own, reference=derived.add(number, name, made), shape=shape)


def rows_of(references: Sequence[TensorRef], rows: RowMap) -> Rows:
    """A row map as the plan has it, with the tensors that it reads and no others."""
    used = sorted({s for s in rows.sources if s >= 0} | {t for m in rows.means for t, _ in m})
    # Rows of zeros need a tensor too: it says how long they are.
    used = used or [rows.own]
    places = {tensor: place for place, tensor in enumerate(used)}
    return Rows(
        tensors=tuple(references[tensor] for tensor in used),
        from_=tuple(places[source] if source >= 0 else source for source in rows.sources),
        rows=rows.rows,
        means=tuple(tuple((places[tensor], row) for tensor, row in m) for m in rows.means),
        padding=rows.padding,
    )
