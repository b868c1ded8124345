"""YAML, read strictly: a key that stands twice is an error."""

from pathlib import Path
from typing import Any

import yaml

from mergeplan.errors import InputError
from mergeplan.system.reading import read_text


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which plain YAML loaders keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise InputError(f"line {key_node.start_mark.line + 1}: a key must be a word")
            if key in seen:
                raise InputError(f"key `{key}` stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """What YAML text says.

    Raises:
        InputError: It is no YAML, or a key stands twice.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError("invalid YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"invalid YAML: {' '.join(str(error).split())}") from error


def count_documents(text: str) -> int:
    """How many YAML documents a text holds that say anything; 1 for what is no YAML."""
    if "---" not in text:
        return 1
    try:
        nodes = list(yaml.compose_all(text, yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError):
        return 1
    return sum(node.tag != "tag:yaml.org,2002:null" for node in nodes if node is not None)


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file.

    Args:
        what: How messages call the file: `pool`, `costs`.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, or is no YAML.
    """
    text = read_text(path, what)
    try:
        return parse_yaml(text)
    except InputError as error:
        raise InputError(f"cannot read {what} `{path}`: {error.message}", error.hint) from error
