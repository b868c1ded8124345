"""Which row of which tensor each token of the output's tokenizer gets, as mergekit chooses them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mergekit.tokenizer import TokenizerInfo
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig, ZeroEmbedding

from mergeplan.errors import InputError
from mergeplan.planning.rows import MEAN, ZEROS, Row, RowMap


class Vocabulary:
    """The output's tokens, and where each model has them.

    Args:
        wished: What the config says of single tokens.
        models: Those that have the tensor, in order; a tensor's number is its model's.
        heights: Rows of each of their tensors.
        base: The model whose rows stand in where another lacks a token, if any.
        padded_to: Number of which that of the rows becomes a multiple.

    Raises:
        InputError: Tokenizers and tensors do not fit, or the config names a row that is not there.
    """

    def __init__(
        self,
        info: TokenizerInfo,
        wished: Mapping[str, TokenEmbeddingConfig],
        models: Sequence[Any],
        heights: Sequence[int],
        base: Any,
        padded_to: int | None,
    ) -> None:
        self._info = info
        self._models = list(models)
        self._heights = list(heights)
        numbers = sorted(info.tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        if [number for _, number in numbers] != list(range(len(numbers))):
            raise InputError(
                "the output's tokenizer leaves out numbers between its tokens, so that rows and"
                " tokens would not match",
                "choose another `source` for the tokenizer",
            )
        self._tokens = [token for token, _ in numbers]
        self._wished = dict(wished)
        self._base = self._models.index(base) if base in models else None
        self._padding = -len(numbers) % (padded_to or 1)
        # For each model the row of each token, or less than 0.
        self._places = [self._places_in(model) for model in range(len(models))]
        # What stands in for a token that a model lacks, the same for all models.
        self._means: list[tuple[Row, ...]] = []
        self._defaults = [self._default(number) for number in range(len(numbers))]

    def unknown_tokens(self) -> list[str]:
        """Tokens that no model has and no config gives a row to: theirs are zeros."""
        everywhere = zip(self._tokens, *self._places, strict=True)
        found = [token for token, *rows in everywhere if max(rows) < 0]
        return [token for token in found if token not in self._wished]

    def rows_of(self, model: int) -> RowMap:
        """The rows of one model."""
        forced = {token for token, wished in self._wished.items() if wished.force}
        chosen = [
            (model, own) if own >= 0 and token not in forced else default
            for token, own, default in zip(
                self._tokens, self._places[model], self._defaults, strict=True
            )
        ]
        used = [row for source, row in chosen if source == MEAN]
        places = {row: place for place, row in enumerate(used)}
        return RowMap(
            sources=tuple(source for source, _ in chosen),
            rows=tuple(places[row] if source == MEAN else row for source, row in chosen),
            means=tuple(self._means[row] for row in used),
            padding=self._padding,
            own=model,
        )

    def _places_in(self, model: int) -> list[int]:
        place = self._info.permutations[self._models[model]].get
        rows = [place(number, -1) for number in range(len(self._tokens))]
        if max(rows, default=-1) >= self._heights[model]:
            number = rows.index(max(rows))
            self._check(model, rows[number], self._tokens[number])
        return rows

    def _check(self, model: int, row: int, token: str) -> None:
        if not 0 <= row < self._heights[model]:
            raise InputError(
                f"model `{self._models[model]}`: token `{token}` has number {row}, but the"
                f" embedding has {self._heights[model]} rows",
                "the tokenizer does not belong to this model",
            )

    def _default(self, number: int) -> Row:
        """The row for models without a token, or for all where the config forces it."""
        rows = [places[number] for places in self._places]
        wished = self._wished.get(self._tokens[number])
        if min(rows) >= 0 and not (wished and wished.force):
            return ZEROS, 0  # nobody asks for it
        if wished is not None:
            return self._wish(number, wished.source)
        having = [(model, row) for model, row in enumerate(rows) if row >= 0]
        if not having:
            return ZEROS, 0
        if self._base is not None and rows[self._base] >= 0:
            return self._base, rows[self._base]
        if len(having) == 1:
            return having[0]
        self._means.append(tuple(having))
        return MEAN, len(self._means) - 1

    def _wish(self, number: int, source: Any) -> Row:
        """The row that the config names for a token."""
        token = self._tokens[number]
        where = f"`tokenizer.tokens`: token `{token}`"
        if isinstance(source, ZeroEmbedding):
            return ZEROS, 0
        if source is None:
            raise InputError(f"{where} needs a `source`: not every model has it")
        reference = source.model if isinstance(source, ModelTokenEmbedding) else source
        if reference not in self._models:
            raise InputError(
                f"{where} is to come from `{reference}`, which is not merged or lacks the tensor"
            )
        model = self._models.index(reference)
        if not isinstance(source, ModelTokenEmbedding):
            row = self._places[model][number]
            if row < 0:
                raise InputError(f"{where} is to come from `{reference}`, which does not have it")
            return model, row
        row = source.token_id
        if row is None:
            row = self._info.original_vocabs.get(reference, {}).get(source.token)
        if row is None:
            raise InputError(f"{where}: `{reference}` does not have token `{source.token}`")
        self._check(model, row, token)
        return model, row
