"""How models are called before others: by hub ids and names of folders, never by whole paths."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mergeplan.checkpoints.names import hub_ids, parts_of
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError
from mergeplan.merging.folder_names import told_apart
from mergeplan.system.files import expanded, is_there
from mergeplan.system.yamlfile import parse_yaml

# As the hub's cache lays its models out.
_CACHED = re.compile(r"/models--(?:([\w.-]+?)--)?([\w.-]+)/snapshots/(\w+)$")
_SEPARATOR = re.compile(r"[/\\~]")
# The start of an absolute path, also in a comment; not that of an address.
_ABSOLUTE = re.compile(r"(?<![\w/\\:.])(?:~|[A-Za-z]:)?[/\\]\w")
_LONGEST = 4096
# Where a config names whose tokens the output has.
_WORDS = ("base", "union")
_PARTS = {"model", "lora", "path"}


class PublicNames:
    """The public names of the models of a config.

    Args:
        stored: Names of all that is read: an adapter may name its base itself.
    """

    def __init__(self, config: MergeConfig, stored: Sequence[str] = ()) -> None:
        self._config = config
        self._models = [*(model.path for model in config.models), *stored]

    def of(self, name: str) -> str:
        """The public name of a model, which may have an adapter behind a `+`."""
        if name not in self._models and not _may_be_path(name):
            return name
        return "+".join(self._of_parts.get(part, part) for part in parts_of(name))

    @property
    def on_hub(self) -> list[str]:
        """The hub's repositories of all that is read."""
        return list(dict.fromkeys(one for model in self._models for one in self.hub_ids(model)))

    def hub_ids(self, name: str) -> list[str]:
        """The hub's repositories of a model, also where a path leads into the hub's cache."""
        found = []
        for part in parts_of(name):
            cached = _cached(part)
            found += [cached[0]] if cached else hub_ids(part)
        return found

    def within(self, text: str) -> str:
        """A text in which paths of models may stand."""
        for part in sorted(self._of_parts, key=len, reverse=True):
            if _SEPARATOR.search(part):
                text = text.replace(part, self._of_parts[part])
        return text

    @cached_property
    def config_text(self) -> str:
        """The YAML: as it was written, or without comments where it held paths."""
        data = parse_yaml(self._config.text)
        public = self._renamed(data)
        if public == data and not _ABSOLUTE.search(self._config.text):
            return self._config.text
        return yaml.safe_dump(public, sort_keys=False, allow_unicode=True)

    def _renamed(self, data: Any, *keys: object) -> Any:
        """A value of the YAML under some keys."""
        if isinstance(data, dict):
            return {key: self._renamed(value, *keys, key) for key, value in data.items()}
        if isinstance(data, list):
            return [self._renamed(value, *keys) for value in data]
        if not isinstance(data, str) or (_is_source(keys) and data in _WORDS):
            return data
        # A bare name elsewhere is a word of the language; a path is private wherever it stands.
        return self.of(data) if _is_of_model(keys) or _SEPARATOR.search(data) else data

    @cached_property
    def _of_parts(self) -> dict[str, str]:
        """What has another name in public, and that name."""
        written = filter(_SEPARATOR.search, _texts(parse_yaml(self._config.text)))
        texts = [*filter(_may_be_path, written), *self._models]
        parts = dict.fromkeys(part for text in texts for part in parts_of(text))
        cached = {part: "@".join(found) for part in parts if (found := _cached(part))}
        places = {part: place for part in parts if (place := _place(part)) is not None}
        names = told_apart(places)
        source = self._config.tokenizer_source
        if source is not None and source not in _WORDS and names.get(source) in _WORDS:
            names = {part: f"./{name}" if name in _WORDS else name for part, name in names.items()}
        return {**names, **cached}


def _is_source(keys: tuple[object, ...]) -> bool:
    return keys in (("tokenizer_source",), ("tokenizer", "source"))


def _is_of_model(keys: tuple[object, ...]) -> bool:
    """Whether a model is named under these keys."""
    if keys[:1] == ("modules",):
        keys = keys[2:]
    if keys[:2] == ("tokenizer", "tokens"):
        keys = ("tokenizer", *keys[3:])
    if keys[:1] == ("slices",):
        keys = keys[1:]
    start = 2 if keys[:1] in (("models",), ("sources",), ("tokenizer",)) else 1
    # A model may be a mapping of its parts.
    named = keys[start - 1 : start] in (("model",), ("base_model",), ("tokenizer_source",))
    return (named or keys[:2] == ("tokenizer", "source")) and {*keys[start:]} <= _PARTS


def _may_be_path(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable()


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _texts(value)


def _place(part: str) -> Path | None:
    """The whole path of what a text names on this machine; `None` where it names nothing there."""
    try:
        path = expanded(part)
    except InputError:
        return None
    there = path.is_absolute() or is_there(path)
    # The name that was given, and not that of what a link leads to.
    return Path(os.path.normpath(path.absolute())) if there else None


def _cached(part: str) -> tuple[str, str] | None:
    """Repository and revision of a folder in the hub's cache."""
    place = _place(part)
    found = _CACHED.search(place.as_posix()) if place is not None else None
    if found is None:
        return None
    org, name, revision = found.groups()
    return f"{org}/{name}" if org else name, revision
