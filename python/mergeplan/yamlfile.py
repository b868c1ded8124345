"""Read a small YAML file of ours, with errors that name it."""

from pathlib import Path
from typing import Any

import yaml

from mergeplan.errors import InputError, MissingInputError


def read_yaml(path: Path, what: str) -> Any:
    """The contents of a YAML file.

    Args:
        what: How messages call the file: `pool`, `costs`.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open {what} `{path}`: no such file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"cannot read {what} `{path}`: {' '.join(str(error).split())}") from error
