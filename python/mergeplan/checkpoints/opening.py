"""Open the models of a config: folders, hub ids, `.bin` checkpoints, adapters on a base."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.adapters.adapt import LoraOptions, adapted
from mergeplan.checkpoints.adapters.folder import adapter_config, is_adapter
from mergeplan.checkpoints.checkpoint import (
    CONFIG_FILE,
    INDEX_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    Tensor,
    read_model_config,
)
from mergeplan.checkpoints.hub import find_model, is_hub_id
from mergeplan.checkpoints.names import parts_of
from mergeplan.checkpoints.quantised import QuantisedError, is_quantised_id, readable
from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.files import expanded

_SAFETENSORS = (WEIGHTS_FILE, INDEX_FILE)
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class OpenOptions:
    """Where models are looked for, and how adapters are added.

    Attributes:
        cache: Folder of the hub's cache; `None` for the default.
        download: Whether models of the hub that are not in the cache are downloaded.
    """

    lora: LoraOptions = field(default_factory=LoraOptions)
    cache: str | None = None
    download: bool = False


def open_checkpoint(
    name: str, options: OpenOptions | None = None, *, file_too: bool = False
) -> Checkpoint:
    """Read a model's headers, as merges take it; no weight is read.

    Args:
        name: A folder, a hub id `org/name@revision`, or one of both with `+` and that of a LoRA
            adapter. An adapter alone is added to the base that it names.
        file_too: Take a single safetensors file as well as a folder.

    Raises:
        MissingInputError, InputError: Every fault that headers, index or `config.json` show; a
            model that is quantised, but for fp8 with scales.
    """
    return readable(open_stored(name, options, file_too=file_too))


def open_stored(
    name: str, options: OpenOptions | None = None, *, file_too: bool = False
) -> Checkpoint:
    """The same as its files have it, quantised or not: for what merges nothing."""
    options = options or OpenOptions()
    path = expanded(name)
    if path.is_file():
        if file_too:
            return _read(name, path.resolve().parent, path.resolve())
        raise InputError(f"model `{name}` is a file", "give the folder that holds it")
    if len(parts := parts_of(name)) == 2:
        return _adapted(name, parts[0], _folder_of(parts[1], options), options)
    folder = _folder_of(name, options)
    if is_adapter(folder):
        return _adapted(name, None, folder, options)
    if not any((folder / file).exists() for file in _SAFETENSORS) and _has_bin(folder):
        return _read_bin(name, folder)
    return _read(name, folder, folder)


def open_expert(expert: Path, base: Path, options: OpenOptions | None = None) -> Checkpoint:
    """A fine-tuned model, or an adapter on a base, whatever base the adapter names.

    Raises:
        MissingInputError, InputError: As for `open_checkpoint`.
    """
    if not is_adapter(expert):
        return open_checkpoint(str(expert), options)
    return _adapted(f"{base}+{expert}", str(base), expert.resolve(), options or OpenOptions())


def _folder_of(name: str, options: OpenOptions) -> Path:
    path = expanded(name)
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise InputError(f"model `{name}` is a file", "give the folder that holds it")
    if is_hub_id(name):
        return find_model(name, cache=options.cache, download=options.download)
    raise MissingInputError(f"model `{name}` is not a folder", "give a folder, or a hub id")


def _adapted(name: str, base: str | None, folder: Path, options: OpenOptions) -> Checkpoint:
    """Base and adapter as one checkpoint.

    Args:
        base: As the config writes it; `None` for the one that the adapter names.
    """
    config = adapter_config(folder)
    given = base is not None
    if base is None:
        base = _own_base(folder, config)
    files = [folder / file for file in _ADAPTER_FILES if (folder / file).is_file()]
    if not files:
        raise MissingInputError(f"`{folder}` has no {_ADAPTER_FILES[0]}")
    if files[0].suffix == ".bin":
        adapter = _read_bin(str(folder), folder, files[:1])
    else:
        adapter = _read(str(folder), folder, files[0])
    below = open_checkpoint(base, options) if given else _trained_on(base, folder, options)
    if below.is_adapted:
        raise InputError(
            f"model `{name}`: the base `{base}` has an adapter of its own",
            "merge that into its base by peft's `merge_and_unload` first",
        )
    return adapted(name, below, replace(adapter, config=config), options.lora)


def _trained_on(base: str, folder: Path, options: OpenOptions) -> Checkpoint:
    """The base that an adapter names; QLoRA's is quantised, and another than the merge's."""
    by_name = is_quantised_id(base) and not Path(base).is_dir()
    try:
        return open_checkpoint(base, replace(options, download=False) if by_name else options)
    except (QuantisedError, MissingInputError) as error:
        if isinstance(error, MissingInputError) and not by_name:
            raise
        raise InputError(
            f"`{folder}`: the adapter was trained on `{base}`, which is quantised",
            "write `base+adapter` with the folder or hub id of the unquantised base",
        ) from error


def _own_base(folder: Path, config: dict[str, Any]) -> str:
    """The base that an adapter names: as a path from here, from its folder, or in the hub."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise InputError(
            f"`{folder}`: the adapter names no base", "write `base+adapter` with the base's folder"
        )
    if not Path(named).is_dir() and (folder / named).is_dir():
        return str(folder / named)
    if not Path(named).is_dir() and not is_hub_id(named):
        raise MissingInputError(
            f"`{folder}`: the adapter's base `{named}` is not here",
            "write `base+adapter` with the base's folder",
        )
    revision = config.get("revision")
    return f"{named}@{revision}" if revision and not Path(named).is_dir() else named


def _read(name: str, folder: Path, weights: Path) -> Checkpoint:
    from mergeplan._native import read_checkpoint

    rows = read_checkpoint(weights)
    tensors = {
        tensor: Tensor(dtype, tuple(shape), file, n_bytes)
        for tensor, dtype, shape, file, n_bytes in rows
    }
    return Checkpoint(name, folder, weights, tensors, read_model_config(folder / CONFIG_FILE))


def _has_bin(folder: Path) -> bool:
    return any(folder.glob("pytorch_model*.bin"))


def _read_bin(name: str, folder: Path, files: list[Path] | None = None) -> Checkpoint:
    from mergeplan.checkpoints.pickles import read_tensors

    tensors = read_tensors(folder, files)
    return Checkpoint(name, folder, folder, tensors, read_model_config(folder / CONFIG_FILE))
