"""Documents as tokens, of which some are scored.

`text`: the tokenizer's own call, with the special tokens that it adds by default. The first token
    is never scored: nothing comes before it. Where the tokenizer begins with one of its own, every
    token of the text is scored.
`prompt`, `response`: tokenised as one string, as a model meets it in use; a token is scored if it
    holds a character of the response. A token that spans the boundary is scored whole: with
    both parts tokenised apart, the response would begin with a token that nothing generates. What
    the tokenizer adds at the end is not scored. Tokenizers that know no offsets tokenise apart.
`messages`: the chat template; see `chat`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.evaluation.chat import encode_chat
from mergeplan.evaluation.documents import Document

_AT_ONCE = 256  # documents for one call of the tokenizer, which works on them in parallel


@dataclass(frozen=True)
class Sequence:
    """Tokens, and which of them are scored; never the first."""

    ids: NDArray[np.int32]  # (tokens,)
    scored: NDArray[np.bool_]  # (tokens,)


def encode(documents: Iterable[Document], kind: str, tokenizer: Any) -> Iterator[list[Sequence]]:
    """Each document's sequences: one, but for conversations that need several.

    Raises:
        InputError: The tokenizer cannot do it, or a response comes out without tokens; the message
            names the line.
    """
    one = {"text": _texts, "prompt, response": _responses, "messages": _conversations}[kind]
    left = iter(documents)
    while batch := list(islice(left, _AT_ONCE)):
        yield from one(batch, tokenizer)


def _texts(documents: list[Document], tokenizer: Any) -> Iterator[list[Sequence]]:
    rows = tokenizer([document.text for document in documents], verbose=False)["input_ids"]
    for ids in rows:
        yield [_sequence(ids, np.ones(len(ids), bool))]


def _responses(documents: list[Document], tokenizer: Any) -> Iterator[list[Sequence]]:
    if not tokenizer.is_fast:
        for document in documents:
            prompt = tokenizer(document.prompt or "", verbose=False)["input_ids"]
            own = tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
            ids = [*prompt, *own]
            yield [_answer(document, ids, np.arange(len(ids)) >= len(prompt))]
        return
    found = tokenizer(
        [f"{document.prompt}{document.text}" for document in documents],
        return_offsets_mapping=True,
        verbose=False,
    )
    for document, ids, offsets in zip(
        documents, found["input_ids"], found["offset_mapping"], strict=True
    ):
        ends = np.array(offsets, int).reshape(-1, 2)[:, 1]
        yield [_answer(document, ids, ends > len(document.prompt or ""))]


def _conversations(documents: list[Document], tokenizer: Any) -> Iterator[list[Sequence]]:
    for document in documents:
        try:
            sequences = encode_chat(document.messages or (), tokenizer)
        except InputError as error:
            raise InputError(f"line {document.line}: {error.message}", error.hint) from error
        yield [_answer(document, ids, scored) for ids, scored in sequences]


def _answer(document: Document, ids: list[int], scored: NDArray[np.bool_]) -> Sequence:
    if not scored.any():
        raise InputError(
            f"line {document.line}: the response has no tokens, {len(ids)} in all",
            "leave the line out: nothing in it can be scored",
        )
    return _sequence(ids, scored)


def _sequence(ids: list[int], scored: NDArray[np.bool_]) -> Sequence:
    scored[:1] = False
    return Sequence(np.array(ids, np.int32), scored)
