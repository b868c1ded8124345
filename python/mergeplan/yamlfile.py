"""Read a small YAML file of ours, with errors that name it."""

from pathlib import Path
from typing import Any

import yaml

from mergeplan.errors import InputError, MissingInputError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML readers keep the last one."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key `{key.value}` stands twice", key.start_mark
            )
        if isinstance(key.value, str):
            seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file.

    Args:
        what: How messages call the file: `pool`, `costs`.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, or is no YAML.
    """
    try:
        return yaml.load(path.read_text("utf-8"), _Loader)
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open {what} `{path}`: no such file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {what} `{path}`: {' '.join(str(error).split())}") from error
