"""JSON-lines files of held-out text, read and checked line by line."""

import codecs
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mergeplan.display.text import format_bytes, listed
from mergeplan.errors import InputError, MissingInputError, nearest, raise_all
from mergeplan.system.reading import TEXTS, decode, open_plain, read_bytes

# What a line may be, beside its `group`; other keys, such as an id, are not looked at.
KINDS = ("text", "prompt, response", "messages")
# Of a file that is read for a scorer and has other lines than these.
OBJECTS = "objects"
_KEYS = ("text", "prompt", "response", "messages")
# So many of a file's faults are told one by one.
_MOST_LINES = 5
_Line = TypeVar("_Line")


@dataclass(frozen=True)
class Document:
    """One line of a file.

    Attributes:
        line: Its number in the file, from 1.
        text: What is scored: the text, or the response; empty for messages.
        prompt: What comes before a response; `None` for other kinds.
        messages: A conversation, each with `role` and `content`; `None` for other kinds.
        group: The file, conversation or source that it is a part of; `None` where the line has
            none, and the document stands for itself.
    """

    line: int
    text: str = ""
    prompt: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    group: str | None = None

    def sha256(self, seed: int) -> str:
        """A hash of the content and a seed, whichever line it stands on."""
        content = json.dumps([seed, self.text, self.prompt, self.messages])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def half(self) -> str:
        """`selection` or `check`, by the group alone, or else by the content: the same in every run
        and every file."""
        digest = self.sha256(0)
        if self.group is not None:
            digest = hashlib.sha256(json.dumps(["group", self.group]).encode()).hexdigest()
        return "check" if int(digest[-1], 16) % 2 else "selection"


@dataclass(frozen=True)
class TextFile:
    """A file whose documents are all of one kind; `sha256` is that of its bytes.

    Attributes:
        objects: What a scorer is given for each document; empty where there is none.
    """

    path: Path
    kind: str
    documents: tuple[Document, ...]
    sha256: str
    objects: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @property
    def grouped(self) -> bool:
        """Whether any document has a group."""
        return any(document.group is not None for document in self.documents)


def read_documents(path: Path, *, given: bool = False) -> TextFile:
    """Read a JSON-lines file; a byte order mark and blank lines are passed over.

    Args:
        given: Whether the user names it, so that it may be a pipe.

    Raises:
        MissingInputError: There is no such file.
        InputError: The file, or a line of it, is at fault.
    """
    raw = read_bytes(path, TEXTS, given=given)
    kind, documents = _documents(raw, path)
    return TextFile(path, kind, documents, hashlib.sha256(raw).hexdigest())


def first_documents(path: Path, most_bytes: int) -> tuple[str, tuple[Document, ...], bool]:
    """The documents that a JSON-lines file begins with, as far as so many bytes tell.

    Returns:
        Their kind, the documents, and whether they are all.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, or one of these lines is at fault.
    """
    try:
        with open_plain(path) as file:
            raw = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {error.strerror}") from error
    whole = len(raw) <= most_bytes
    if not whole:
        raw = raw[: raw.rfind(b"\n", 0, most_bytes) + 1]
        if not raw:
            raise InputError(f"`{path}`: its first line is longer than {format_bytes(most_bytes)}")
    return *_documents(raw, path), whole


def _documents(raw: bytes, path: Path) -> tuple[str, tuple[Document, ...]]:
    """All documents of a file, and their one kind."""
    kind = ""

    def document(data: dict[str, Any], number: int) -> Document:
        nonlocal kind
        found = _kind(data)
        if kind and found != kind:
            raise InputError(
                f"expected `{kind}` as on the lines before, found `{found}`",
                "keep one kind of document in a file",
            )
        kind = found
        return _document(data, kind, number)

    documents = _read_lines(raw, path, document)
    if not documents:
        raise InputError(
            f"`{path}` is empty: expected JSON lines with `text`, `prompt` and `response`, or"
            " `messages`",
            "leave the domain out, or give it text",
        )
    return kind, tuple(documents)


def read_objects(path: Path, *, given: bool = False) -> TextFile:
    """Read a JSON-lines file for a scorer: objects of any keys, `group` among them as ever.

    What is text keeps the half that it has as text; anything else goes by all of its content.

    Args:
        given: As for `read_documents`.

    Raises:
        MissingInputError: There is no such file.
        InputError: The file, or a line of it, is at fault.
    """
    kind = KINDS[0]

    def both(data: dict[str, Any], number: int) -> tuple[Document, dict[str, Any]]:
        nonlocal kind
        try:
            return _document(data, _kind(data), number), data
        except InputError:
            kind = OBJECTS
            content = json.dumps(data, sort_keys=True)
            return Document(number, content, group=_group(data.get("group"))), data

    raw = read_bytes(path, TEXTS, given=given)
    found = _read_lines(raw, path, both)
    if not found:
        raise InputError(f"`{path}` is empty: expected a JSON object on each line")
    documents, objects = zip(*found, strict=True)
    return TextFile(path, kind, documents, hashlib.sha256(raw).hexdigest(), objects)


def _read_lines(raw: bytes, path: Path, one: Callable[[dict[str, Any], int], _Line]) -> list[_Line]:
    """What each line that is not blank comes to.

    Raises:
        InputError: Lines are at fault: the first of them, and how many more there are.
    """
    found: list[_Line] = []
    faults: list[InputError] = []
    more = 0
    for number, line in enumerate(_lines(raw, path), 1):
        if not line.strip():
            continue
        try:
            text = line if isinstance(line, str) else decode(line, path)
            found.append(one(_object(text), number))
        except InputError as error:
            if len(faults) == _MOST_LINES:
                more += 1
                continue
            why = error.message.removeprefix(f"`{path}`, line 1: ")
            faults.append(InputError(f"`{path}`, line {number}: {why}", error.hint))
    if more:
        faults.append(InputError(f"`{path}`: {more} more lines are at fault"))
    if faults:
        raise_all(faults)
    return found


def _lines(raw: bytes, path: Path) -> Sequence[str | bytes]:
    """As bytes where some are no UTF-8, so that each of those is told."""
    try:
        return decode(raw, path).split("\n")
    except InputError:
        return raw.removeprefix(codecs.BOM_UTF8).split(b"\n")


def _object(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = "each line is a JSON object of its own, as `json.dumps` writes it"
        raise InputError(f"not JSON: {error}", hint) from error
    if not isinstance(data, dict):
        raise InputError(
            f"expected a JSON object, found {_name(data)}", 'write {"text": "..."} on each line'
        )
    return data


def _kind(data: dict[str, Any]) -> str:
    keys = [key for key in _KEYS if key in data]
    kind = ", ".join(keys)
    if kind in KINDS:
        return kind
    if keys in (["prompt"], ["response"]):
        other = "response" if keys == ["prompt"] else "prompt"
        raise InputError(
            f"key `{other}` is missing beside `{keys[0]}`", nearest(other, [*data.keys()])
        )
    if keys:
        raise InputError(
            f"keys {_names(keys)} do not go together",
            "keep `text`, or `prompt` and `response`, or `messages`",
        )
    hint = next((hint for key in data if (hint := nearest(key, list(_KEYS)))), None)
    raise InputError(
        f"expected `text`, `prompt` and `response`, or `messages`, found {_names(list(data))}",
        hint or "rename the key that holds the text to `text`",
    )


def _document(data: dict[str, Any], kind: str, line: int) -> Document:
    group = _group(data.get("group"))
    if kind == "messages":
        return Document(line, messages=_messages(data["messages"]), group=group)
    if kind == "text":
        return Document(line, _text(data, "text"), group=group)
    response, prompt = _text(data, "response"), _text(data, "prompt", empty=True)
    return Document(line, response, prompt, group=group)


def _group(value: object) -> str | None:
    """A group's name; tables write `null` where there is none, and whole numbers as 3 or 3.0."""
    if value is None:
        return None
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return _unicode(value, "group")
    found = "an empty string" if isinstance(value, str) else _name(value)
    found = f"{value}" if isinstance(value, float) else found
    raise InputError(
        f"key `group`: expected a string or a number, found {found}",
        "name the file, conversation or source that the document is a part of, or leave it out",
    )


def _messages(value: object) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else _name(value)
        raise InputError(
            f"key `messages`: expected a list of messages, found {found}",
            'write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]',
        )
    messages = []
    for number, message in enumerate(value):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise InputError(f"key `{where}`: expected a JSON object, found {_name(message)}")
        role = _text(message, "role", where + ".")
        # An empty system prompt or question is odd, but some are; an empty answer has no loss.
        content = _text(message, "content", where + ".", empty=role != "assistant")
        messages.append({"role": role, "content": content})
    if not any(message["role"] == "assistant" for message in messages):
        roles = _names(sorted({message["role"] for message in messages}))
        raise InputError(
            f"key `messages`: no message of role `assistant`, found {roles}",
            "only answers are scored; a conversation needs one",
        )
    return tuple(messages)


def _text(data: dict[str, Any], key: str, where: str = "", *, empty: bool = False) -> str:
    if key not in data:
        raise InputError(f"key `{where}{key}` is missing", nearest(key, [*data.keys()]))
    value = data[key]
    if not isinstance(value, str):
        raise InputError(f"key `{where}{key}`: expected a string, found {_name(value)}")
    if not value and not empty:
        raise InputError(
            f"key `{where}{key}` is empty", "leave the line out: nothing in it can be scored"
        )
    return _unicode(value, where + key)


def _unicode(value: str, key: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"key `{key}`: expected text, found half a surrogate pair at character {error.start}",
            r"emoji are written as they are, or as two \u escapes",
        ) from error
    return value


def _names(keys: list[str]) -> str:
    return listed(keys) if keys else "no keys"


def _name(value: object) -> str:
    """What JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
