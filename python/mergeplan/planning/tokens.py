"""What a tokenizer option makes of a merge, as data: mergekit works it out."""

from collections.abc import Mapping
from dataclasses import dataclass

from mergeplan.planning.rows import RowMap, Stack


@dataclass(frozen=True)
class Tokens:
    """The output's tokenizer, and where its rows come from.

    Attributes:
        rows: The rows of each tensor of each stack that was asked for; empty where the vocabulary
            stays as it is.
        n_tokens: Rows of the output's embedding; `None` likewise.
        files: The tokenizer's own, by name.
    """

    rows: Mapping[Stack, list[RowMap]]
    n_tokens: int | None
    files: dict[str, bytes]
    warnings: tuple[str, ...]
