"""Which documents of a file are scored."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mergeplan.errors import InputError
from mergeplan.evaluation.documents import Document, TextFile
from mergeplan.evaluation.encoding import Sequence, encode
from mergeplan.evaluation.options import EvaluationOptions


@dataclass(frozen=True)
class EncodedDocument:
    """A document and its tokens."""

    line: int
    sequences: list[Sequence]
    n_tokens: int  # scored
    group: str | None = None
    order: str = ""  # a seeded hash of its content


def choose(
    file: TextFile, tokenizer: Any, options: EvaluationOptions
) -> tuple[list[EncodedDocument], list[str]]:
    """Encode the documents to score, in the file's order, and name those without such tokens.

    Under `max_tokens` they are met in an order of their contents, and no more are encoded than it
    takes.

    Raises:
        InputError: A line cannot be encoded, or nothing in the file can be scored.
    """
    documents = file.documents
    if options.half != "all":
        documents = tuple(document for document in documents if document.half == options.half)
        if not documents:
            raise InputError(
                f"`{file.path}`: none of its {len(file.documents)} documents falls into the"
                f" {options.half} half",
                "give the domain more documents",
            )
    if options.max_tokens is not None:
        documents = tuple(sorted(documents, key=lambda document: document.sha256(options.seed)))
    chosen: list[EncodedDocument] = []
    left_out: list[str] = []
    total = 0
    for document, sequences in zip(documents, _encode(file, documents, tokenizer), strict=False):
        count = sum(int(sequence.scored.sum()) for sequence in sequences)
        if not count:
            left_out.append(
                f"`{file.path}`, line {document.line} is left out: a single token, nothing before"
                " it that could predict it"
            )
            continue
        # The first that is too long ends the choice: going on would favour short ones.
        if options.max_tokens is not None and chosen and total + count > options.max_tokens:
            break
        order = document.sha256(options.seed)
        chosen.append(EncodedDocument(document.line, sequences, count, document.group, order))
        total += count
    if not chosen:
        raise InputError(
            f"`{file.path}`: expected two tokens or more in a text, found a single one in each",
            "the first token of a text has nothing before it that could predict it",
        )
    return sorted(chosen, key=lambda entry: entry.line), left_out


def _encode(
    file: TextFile, documents: tuple[Document, ...], tokenizer: Any
) -> Iterator[list[Sequence]]:
    try:
        yield from encode(documents, file.kind, tokenizer)
    except InputError as error:
        raise InputError(f"`{file.path}`, {error.message}", error.hint) from error
