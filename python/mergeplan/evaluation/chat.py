"""Conversations as a chat template writes them, of which the answers are scored.

A template that marks answers by `{% generation %}` says itself what is scored. Else an answer is
what the template writes after its generation prompt, up to and with the end-of-turn token; white
space after that is the template's and is not scored. Some templates write an old answer otherwise
than the last one (they drop its reasoning): then each answer is scored in the conversation as it
stood when it was given, in a sequence of its own.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError

Messages = tuple[dict[str, str], ...]
Encoded = tuple[list[int], NDArray[np.bool_]]  # ids, and which are scored: both (tokens,)
Span = tuple[int, int]  # [start, end) in characters

_MARK = re.compile(r"\{%[-+]?\s*generation\b")
_HINT = "use a tokenizer whose template suits the data, or write `prompt` and `response`"


def encode_chat(messages: Messages, tokenizer: Any) -> list[Encoded]:
    """Tokenise a conversation so that every answer of it is scored once.

    Raises:
        InputError: There is no chat template, it refuses the conversation, or the tokenizer knows
            no offsets.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"`messages` need a tokenizer that knows offsets, found `{type(tokenizer).__name__}`",
            "give it a tokenizer.json, or write `prompt` and `response`",
        )
    if not tokenizer.chat_template:
        raise InputError("`messages` need a chat template, and the tokenizer has none", _HINT)
    try:
        if _MARK.search(tokenizer.get_chat_template()):
            found = tokenizer.apply_chat_template(
                list(messages), return_dict=True, return_assistant_tokens_mask=True
            )
            return [(found["input_ids"], np.array(found["assistant_masks"], bool))]
        return _by_prefixes(messages, tokenizer)
    except InputError:
        raise
    except Exception as error:  # templates raise what they like; it is their message that helps
        raise InputError(f"the chat template refuses the conversation: {error}", _HINT) from error


def _by_prefixes(messages: Messages, tokenizer: Any) -> list[Encoded]:
    whole = _write(messages, tokenizer)
    answers: list[tuple[str, Span]] = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _write(messages[:turn], tokenizer, add_generation_prompt=True)
        text = _write(messages[: turn + 1], tokenizer)
        if not text.startswith(before):
            raise InputError(
                f"the chat template does not write messages[{turn}] after its generation prompt",
                _HINT,
            )
        answers.append((text, (len(before), len(text.rstrip()))))
    if all(whole.startswith(text) for text, _ in answers):
        return [_encode(whole, [span for _, span in answers], tokenizer)]
    return [_encode(text, [span], tokenizer) for text, span in answers]


def _write(messages: Messages, tokenizer: Any, **options: bool) -> str:
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    return text


def _encode(text: str, spans: list[Span], tokenizer: Any) -> Encoded:
    # The template writes the special tokens, also the first.
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts, ends = np.array(found["offset_mapping"], int).reshape(-1, 2).T  # (tokens,)
    scored = np.zeros(len(starts), bool)
    for start, end in spans:
        scored |= (ends > start) & (starts < end)
    return found["input_ids"], scored
