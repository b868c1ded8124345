"""Which row of which tensor each token of the output's tokenizer gets, as mergekit chooses them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergekit.tokenizer import TokenizerInfo
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig, ZeroEmbedding
from mergekit.tokenizer.embed import PermutedVocabulary

from mergeplan.errors import InputError

# Sources of a row that is no row of a tensor, as `rust/core/src/plan.rs` has them.
ZEROS = -1
MEAN = -2

Row = tuple[int, int]


@dataclass(frozen=True)
class RowMap:
    """The rows of one model's tensor after it was given the output's vocabulary.

    Attributes:
        sources: For each row the number of the tensor that it comes from, or `ZEROS` or `MEAN`.
        rows: Its row there, or the number of the mean.
        means: The (tensor, row) pairs that each mean is over.
        padding: Further rows, each the mean of all rows before.
    """

    sources: tuple[int, ...]
    rows: tuple[int, ...]
    means: tuple[tuple[Row, ...], ...]
    padding: int

    def is_identity(self, own: int, n_rows: int) -> bool:
        """Whether the tensor `own`, of `n_rows` rows, is as it was."""
        return (
            not self.padding
            and self.rows == tuple(range(n_rows))
            and all(source == own for source in self.sources)
        )


class Vocabulary:
    """The output's tokens, and where each model has them.

    Args:
        models: Those that have the tensor, in order; a tensor's number is its model's.
        heights: Rows of each of their tensors.
    """

    def __init__(
        self,
        info: TokenizerInfo,
        task: PermutedVocabulary,
        models: Sequence[Any],
        heights: Sequence[int],
    ) -> None:
        self._info = info
        self._models = list(models)
        self._heights = list(heights)
        self._tokens = sorted(info.tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if [number for _, number in self._tokens] != list(range(len(self._tokens))):
            raise InputError(
                "the output's tokenizer leaves out numbers between its tokens, so that rows and"
                " tokens would not match",
                "choose another `source` for the tokenizer",
            )
        self._wished: Mapping[str, TokenEmbeddingConfig] = dict((task.tokens or {}).items())
        self._base = task.base_model
        multiple = task.pad_to_multiple_of or 1
        self._padding = -len(self._tokens) % multiple
        # What stands in for a token that a model lacks, the same for all models.
        self._means: list[tuple[Row, ...]] = []
        self._defaults = [self._default(token, number) for token, number in self._tokens]

    @property
    def n_rows(self) -> int:
        """Rows of the output, with padding."""
        return len(self._tokens) + self._padding

    def unknown_tokens(self) -> list[str]:
        """Tokens that no model has and no config gives a row to: theirs are zeros."""
        return [
            token
            for token, number in self._tokens
            if token not in self._wished and not self._having(number)
        ]

    def rows_of(self, model: int) -> RowMap:
        """The rows of one model."""
        chosen = []
        for (token, number), default in zip(self._tokens, self._defaults, strict=True):
            own = self._row(model, number)
            forced = token in self._wished and self._wished[token].force
            chosen.append((model, own) if own is not None and not forced else default)
        used = [row for source, row in chosen if source == MEAN]
        places = {row: place for place, row in enumerate(used)}
        return RowMap(
            sources=tuple(source for source, _ in chosen),
            rows=tuple(places[row] if source == MEAN else row for source, row in chosen),
            means=tuple(self._means[row] for row in used),
            padding=self._padding,
        )

    def _row(self, model: int, number: int) -> int | None:
        """A token's row in a model; `None` where the model lacks it."""
        row = self._info.permutations[self._models[model]].get(number, -1)
        if row < 0:
            return None
        return self._checked(model, row, self._tokens[number][0])

    def _checked(self, model: int, row: int, token: str) -> int:
        if 0 <= row < self._heights[model]:
            return int(row)
        raise InputError(
            f"model `{self._models[model]}`: token `{token}` has number {row}, but the embedding"
            f" has {self._heights[model]} rows",
            "the tokenizer does not belong to this model",
        )

    def _having(self, number: int) -> list[int]:
        return [m for m in range(len(self._models)) if self._row(m, number) is not None]

    def _default(self, token: str, number: int) -> Row:
        """The row for models without the token, or for all where the config forces it."""
        wished = self._wished.get(token)
        having = self._having(number)
        if wished is None:
            if not having:
                return ZEROS, 0
            if self._base in self._models and len(having) > 1:
                base = self._models.index(self._base)
                having = [base] if base in having else having
            if len(having) == 1:
                return having[0], self._row(having[0], number) or 0
            if len(having) == len(self._models):
                return ZEROS, 0  # nobody asks for it
            return self._mean(having, number)
        if len(having) == len(self._models) and not wished.force:
            return ZEROS, 0  # nobody asks for it
        return self._wish(token, number, wished.source)

    def _mean(self, having: list[int], number: int) -> Row:
        self._means.append(tuple((m, self._row(m, number) or 0) for m in having))
        return MEAN, len(self._means) - 1

    def _wish(self, token: str, number: int, source: Any) -> Row:
        """The row that the config names for a token."""
        if isinstance(source, ZeroEmbedding):
            return ZEROS, 0
        if source is None:
            raise InputError(
                f"`tokenizer.tokens`: token `{token}` needs a `source`: not every model has it"
            )
        reference = source.model if isinstance(source, ModelTokenEmbedding) else source
        if reference not in self._models:
            raise InputError(
                f"`tokenizer.tokens`: token `{token}` is to come from `{reference}`, which is not"
                " merged or lacks the tensor"
            )
        model = self._models.index(reference)
        if not isinstance(source, ModelTokenEmbedding):
            row = self._row(model, number)
            if row is None:
                raise InputError(f"`tokenizer.tokens`: `{reference}` does not have token `{token}`")
            return model, row
        row = source.token_id
        if row is None:
            row = self._info.original_vocabs.get(reference, {}).get(source.token)
            if row is None:
                raise InputError(
                    f"`tokenizer.tokens`: `{reference}` does not have token `{source.token}`"
                )
        return model, self._checked(model, row, token)
