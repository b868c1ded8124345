"""The folder that peft's `save_pretrained` writes."""

from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import read_model_config
from mergeplan.checkpoints.weights import has_weights
from mergeplan.errors import MissingInputError
from mergeplan.system.files import is_there

CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter, and no whole model; a `config.json` is none."""
    # A folder that is closed is told as such where it is opened.
    return is_there(folder / CONFIG) and (folder / CONFIG).is_file() and not has_weights(folder)


def adapter_config(folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says.

    Raises:
        MissingInputError, InputError: It is not there, or no JSON object.
    """
    path = folder / CONFIG
    if not path.exists():
        raise MissingInputError(
            f"`{folder}` has no {CONFIG}", "give the folder that `save_pretrained` of peft wrote"
        )
    return read_model_config(path)
