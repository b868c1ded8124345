"""What goes up names no path of the machine that it was made on."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mergeplan.checkpoints.checkpoint import CONFIG_FILE
from mergeplan.checkpoints.tokenizer import SETTINGS_FILES
from mergeplan.errors import InputError
from mergeplan.system.jsontext import loads

# Files, also of a folder below, in which loaders and trainings note where something was. Lists of
# tokens and templates are none of them: any text may stand there.
_SETTINGS = {CONFIG_FILE, "tokenizer_config.json", *SETTINGS_FILES}
# Keys of paths, and keys of words that may look like one: `/`, `</s>`, `\\s+`.
_OF_PATHS = re.compile(r"(path|file|dir|directory|folder)s?$", re.IGNORECASE)
_OF_WORDS = re.compile(
    r"(?<![a-z])tokens?(?![a-z])|template|schema|pattern|regex|prompt|label|strings|vocab",
    re.IGNORECASE,
)
_START = re.compile(r"file:|(?:~[\w.-]*|[A-Za-z]:)?[/\\]|(?:.*[/\\])?\.\.[/\\]", re.IGNORECASE)
# Where the key does not say that it is one.
_CLEAR = re.compile(
    r"(?:file:/*)?(?:/[\w .@+=,-]+){2,}/?|(?:~[\w.-]*|(?:[\w .@+=,-]+/)*\.\.)(?:/[\w .@+=,-]+)+/?"
    r"|[A-Za-z]:(?:[/\\][\w .-]+){2,}[/\\]?",
    re.IGNORECASE,
)
_LONGEST = 4096
_NO_NAMES = re.compile(r"\.*|~[\w.-]*|[A-Za-z]:|file:", re.IGNORECASE)


def without_paths(name: str, content: bytes) -> bytes:
    """A file in which what is a path is cut to its last name.

    Args:
        name: Its name in the folder of a model; other files than settings stay as they are.
    """
    if PurePosixPath(name).name not in _SETTINGS:
        return content
    try:
        data = loads(content)
    except ValueError:
        return content
    public = _cut(data, "")
    if public == data:
        return content
    return (json.dumps(public, indent=2, ensure_ascii=False) + "\n").encode()


def _cut(data: Any, key: str) -> Any:
    is_path = bool(_OF_PATHS.search(key))
    if not is_path and _OF_WORDS.search(key):
        return data
    if isinstance(data, dict):
        return {key: _cut(value, key) for key, value in data.items()}
    if isinstance(data, list):
        return [_cut(value, key) for value in data]
    # The patterns take the square of the length.
    if not isinstance(data, str) or len(data) > _LONGEST:
        return data
    if _START.match(data) if is_path else _CLEAR.fullmatch(data):
        names = [one for one in re.split(r"[/\\]", data) if not _NO_NAMES.fullmatch(one)]
        return names[-1] if names else data
    return data


def refuse_paths(files: Mapping[str, bytes], folders: Iterable[Path]) -> None:
    """Check that no file names a folder.

    Args:
        files: Contents by name.
        folders: Folders and files of this machine. One right below the root tells nothing, and is
            a word like others: `/out`.

    Raises:
        InputError: One does.
    """
    absolute = {os.path.normpath(folder.absolute()) for folder in folders}
    absolute |= {str(folder.resolve()) for folder in folders}
    for path in sorted(absolute, key=len, reverse=True):
        if len(Path(path).parts) < 3:
            continue
        spelled = {os.fsencode(path), Path(path).as_posix().encode(errors="replace")}
        spelled.add(json.dumps(path)[1:-1].encode())
        there = re.compile(rb"(?<![\w.-])(?:%s)(?![\w-])" % b"|".join(map(re.escape, spelled)))
        for name, content in files.items():
            # The pattern alone takes long for a vocabulary.
            if any(one in content for one in spelled) and there.search(content):
                raise InputError(
                    f"`{name}` would be published with the path `{path}` in it",
                    "take the path out of that file in the model that it is of, and merge again",
                )
