"""Prompts to be completed, from a file of lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.errors import InputError
from mergeplan.evaluation.documents import read_objects
from mergeplan.system.files import input_path
from mergeplan.system.reading import TEXTS, decode, read_bytes

Messages = tuple[dict[str, str], ...]

_KEYS = ("messages", "prompt", "text")
_HINT = 'write {"text": "..."} or {"messages": [...]} on each line, or a .txt of one prompt a line'


@dataclass(frozen=True)
class Prompt:
    """What models go on from.

    Attributes:
        line: Where it stands in its file.
        text: Empty for a conversation.
        messages: A conversation up to the answer, for a chat template.
    """

    line: int
    text: str = ""
    messages: Messages = ()


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """One prompt a line: plain in a `.txt`, else JSON with `text`, `prompt` or `messages`.

    The last answer of a conversation is left out, for the models to give their own.

    Raises:
        InputError: The file or a line of it is at fault, or there is no prompt in it.
    """
    path = input_path(path)
    if path.suffix == ".jsonl":
        file = read_objects(path, given=True)
        lines = zip(file.documents, file.objects, strict=True)
        return tuple(_prompt(path, document.line, data) for document, data in lines)
    if path.suffix != ".txt":
        raise InputError(f"prompts `{path}`: expected a file ending in .txt or .jsonl", _HINT)
    texts = decode(read_bytes(path, TEXTS, given=True), path).split("\n")
    found = [Prompt(n, text.rstrip("\r")) for n, text in enumerate(texts, 1) if text.strip()]
    if not found:
        raise InputError(f"`{path}` is empty: expected one prompt a line", _HINT)
    return tuple(found)


def _prompt(path: Path, line: int, data: dict[str, Any]) -> Prompt:
    where = f"`{path}`, line {line}"
    key = next((key for key in _KEYS if key in data), None)
    if key is None:
        raise InputError(f"{where}: expected `text`, `prompt` or `messages`", _HINT)
    if key != "messages":
        if not isinstance(data[key], str) or not data[key]:
            raise InputError(f"{where}: key `{key}`: expected a text to go on from", _HINT)
        return Prompt(line, data[key])
    messages = data[key] if isinstance(data[key], list) else []
    for one in messages:
        if not isinstance(one, dict) or not all(
            isinstance(one.get(name), str) for name in ("role", "content")
        ):
            raise InputError(f"{where}: `messages`: expected texts `role` and `content` in each")
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages:
        raise InputError(f"{where}: `messages`: expected a message that asks for an answer")
    kept = tuple({name: one[name] for name in ("role", "content")} for one in messages)
    return Prompt(line, messages=kept)
