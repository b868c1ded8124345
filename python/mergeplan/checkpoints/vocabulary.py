"""Which row of the embedding each token has, by a tokenizer's own files; none is loaded or run."""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.beside import json_beside, sha256_beside
from mergeplan.checkpoints.tokenizer import BESIDE_VOCABULARIES, VOCABULARIES
from mergeplan.display.text import cut, shown
from mergeplan.errors import InputError
from mergeplan.system.jsontext import loads
from mergeplan.system.reading import VOCABULARY, read_bytes

Ids = dict[str, int]
# What a file raises that is not in the form of its kind.
_FAULTS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError),
)

_SENTENCEPIECE = (".model", ".spm", ".tokenizer")
# A line of tiktoken's files, which some models call `.model` too; a message of sentencepiece begins
# with a line break.
_RANK = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")


@dataclass(frozen=True)
class TokenFiles:
    """The files of one folder that say which token has which id.

    Attributes:
        lists: SHA-256 of each file that lists the vocabulary, the preferred one first.
        added: Tokens that were added to it, as far as small files beside it name them.
    """

    folder: Path
    lists: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, int], ...]


def token_files(folder: Path) -> TokenFiles | None:
    """What a folder holds of a tokenizer; `None` where it lists no vocabulary.

    Returns:
        Equal values for equal contents, but for the folder.
    """
    found = (path for pattern in VOCABULARIES for path in sorted(folder.glob(pattern)))
    paths = [path for path in found if path.is_file()]
    if not paths:
        return None
    return TokenFiles(
        folder,
        tuple((path.name, sha256_beside(path)) for path in paths),
        tuple(sorted(_added(folder).items())),
    )


def files_without_list(folder: Path) -> list[str]:
    """Names of a tokenizer's files in a folder where none that is known lists its vocabulary."""
    if token_files(folder) is not None:
        return []
    return [name for name in BESIDE_VOCABULARIES if (folder / name).is_file()]


def _added(folder: Path) -> Ids:
    """Tokens that the small files name; entries of another form are none."""
    decoder = json_beside(folder / "tokenizer_config.json").get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    found = {
        str(one["content"]): int(number)
        for number, one in entries
        if isinstance(one, dict) and "content" in one and number.isdecimal()
    }
    added = json_beside(folder / "added_tokens.json").items()
    return found | {token: number for token, number in added if isinstance(number, int)}


def read_ids(files: TokenFiles, name: str) -> Ids:
    """The id of each token.

    Args:
        name: Which of the lists to go by. Where a token is in it and among the added ones too,
            transformers takes the list's id from `tokenizer.json`, and else the added one's.

    Raises:
        InputError: It is not in the form of its kind.
    """
    path = files.folder / name
    try:
        if name == "tokenizer.json":
            ids = {**dict(files.added), **_of_tokenizer_json(_content(path).decode())}
        else:
            ids = {**_of_other(path), **dict(files.added)}
        odd = next((token for token, number in ids.items() if not _is_id(number)), None)
        if odd is not None:
            raise ValueError(f"token {shown(odd)}: expected a number, found {cut(ids[odd])}")
        return ids
    except InputError:
        raise
    except _FAULTS as error:
        raise InputError(f"cannot read the vocabulary of `{path}`: {cut(error)}") from error


def _is_id(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 31


def _of_tokenizer_json(text: str) -> Ids:
    vocabulary = _value_of("vocab", text)
    if vocabulary is None:
        raise ValueError("it has no `vocab`")
    if not isinstance(vocabulary, dict):  # Unigram: pairs of token and score
        vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
    added = {one["content"]: int(one["id"]) for one in _value_of("added_tokens", text) or ()}
    return {**added, **vocabulary}


def _value_of(key: str, text: str) -> Any:
    """The list or mapping of a key, wherever it stands: most of the file is merges, and a third of
    the time and half of the memory goes without them.

    Inside a string a quote has a backslash, and what `vocab` means as a token is a number.
    """
    found = re.search(rf'"{key}"\s*:\s*(?=[{{\[])', text)
    return found and json.JSONDecoder().raw_decode(text, found.end())[0]


def _content(path: Path) -> bytes:
    return read_bytes(path, VOCABULARY)


def _of_other(path: Path) -> Ids:
    if path.name == "vocab.txt":
        text = _content(path).decode().replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").split("\n")
        return {line: number for number, line in enumerate(lines)}
    content = _content(path)
    if path.suffix == ".tiktoken" or _RANK.match(content):
        rows = (line.split() for line in content.splitlines() if line)
        return {base64.b64decode(token).decode("latin-1"): int(rank) for token, rank in rows}
    if path.suffix in _SENTENCEPIECE:
        return {piece: number for number, piece in enumerate(_pieces(content))}
    data = loads(content)
    if path.name == "tekken.json":
        first = int(data["config"]["default_num_special_tokens"])
        return {
            base64.b64decode(one["token_bytes"]).decode("latin-1"): first + int(one["rank"])
            for one in data["vocab"]
        }
    return {str(token): int(number) for token, number in data.items()}


def _pieces(model: bytes) -> Iterator[str]:
    """The pieces of a sentencepiece model: field 1 of the message, and field 1 in each of them.

    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    """
    found = [value for field, value in _fields(model) if field == 1]
    if not found:
        raise ValueError("it has no pieces")
    for piece in found:
        yield next((value for field, value in _fields(piece) if field == 1), b"").decode()


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of a protobuf message's fields; of fixed and varying numbers no bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        length = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 0:
            _, place = _varint(message, place)
        elif tag & 7 == 2:
            length, place = _varint(message, place)
        elif not length:
            raise ValueError("it is no protobuf message")
        if place + length > len(message):
            raise ValueError("it ends too early")
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
