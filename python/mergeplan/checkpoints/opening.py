"""Open the models of a config: folders, files, hub ids, adapters on a base."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.adapters.adapt import LoraOptions, adapted
from mergeplan.checkpoints.adapters.folder import CONFIG as ADAPTER_CONFIG
from mergeplan.checkpoints.adapters.folder import adapter_config, is_adapter
from mergeplan.checkpoints.checkpoint import CONFIG_FILE, Checkpoint, read_model_config
from mergeplan.checkpoints.files import Weights, read_weights, shard_of
from mergeplan.checkpoints.hub import find_model, is_hub_id
from mergeplan.checkpoints.lookalikes import (
    no_model,
    no_weights,
    refuse_empty,
    refuse_factors,
    refuse_pipeline,
)
from mergeplan.checkpoints.names import parts_of
from mergeplan.checkpoints.pickles import ENDINGS
from mergeplan.checkpoints.quantised import QuantisedError, is_quantised_id, readable
from mergeplan.checkpoints.weights import find_weights
from mergeplan.errors import InputError, MergeplanError, MissingInputError
from mergeplan.system.files import input_path

_FILES = (".safetensors", *ENDINGS)
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
    name: str, options: OpenOptions | None = None, *, shard_too: bool = False
) -> Checkpoint:
    """Read a model's headers, as merges take it; no weight is read.

    Args:
        name: A folder, a file of weights or an index of such, a hub id `org/name@revision`, or one
            of these with `+` and the folder or hub id of a LoRA adapter. An adapter alone is added
            to the base that it names.
        shard_too: Take one of several shards too, which is no whole model.

    Raises:
        MissingInputError, InputError: Every fault that headers, index or `config.json` show; a
            model that is quantised, but for fp8 with scales.
    """
    return readable(open_stored(name, options, shard_too=shard_too))


def open_stored(
    name: str, options: OpenOptions | None = None, *, shard_too: bool = False
) -> Checkpoint:
    """The same as its files have it, quantised or not: for what merges nothing."""
    options = options or OpenOptions()
    with _permitted(name):
        path = input_path(name)
        if path.is_file():
            return _open_file(name, path.parent.resolve() / path.name, shard_too)
        if len(parts := parts_of(name)) == 2:
            return _adapted(name, parts[0], _folder_of(parts[1], options), options)
        return _open_folder(name, _folder_of(name, options), options)


@contextmanager
def _permitted(name: str) -> Iterator[None]:
    """Say of a model whose folder or files may not be read which one that is.

    Raises:
        InputError: The system refuses one.
    """
    try:
        yield
    except MergeplanError:
        raise
    except OSError as error:
        place = Path(error.filename or name)
        # Of a folder that is closed no file can be asked for, not even whether it is there.
        while place.parent != place and not os.access(place.parent, os.X_OK):
            place = place.parent
        raise InputError(
            f"model `{name}`: cannot read `{place}`: {error.strerror}",
            f"`chmod -R a+rX {place}` by its owner lets you read it",
        ) from error


def _open_folder(name: str, folder: Path, options: OpenOptions) -> Checkpoint:
    refuse_pipeline(folder)
    config = read_model_config(folder / CONFIG_FILE)
    found = find_weights(folder, config)
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = _adapter_file(folder)
        if found is None:
            return _adapted(name, None, folder, options)
        if adapter is not None:
            # peft adds it to the base that it names, transformers to the model beside it.
            alone = found.place if isinstance(found.place, Path) else found.place[0]
            raise InputError(
                f"`{folder}` holds both a model, {found.named}, and an adapter, `{adapter.name}`",
                f"give the model as `{alone}`, or with the adapter as `{alone}+{folder}`, or the"
                f" adapter on another base as `base+{folder}`",
            )
    if found is None:
        raise no_model(folder)
    return _checkpoint(name, folder, found, config)


def _open_file(name: str, path: Path, shard_too: bool) -> Checkpoint:
    """A single file, with what lies beside it for its config and tokenizer."""
    if path.suffix not in _FILES and not path.name.endswith(".index.json"):
        raise no_weights(name, path, _FILES)
    if shard_of(path) > 1 and not shard_too:
        raise InputError(
            f"model `{name}` is one of {shard_of(path)} shards of a checkpoint",
            "give the folder that holds them all",
        )
    folder = path.parent
    config = read_model_config(folder / CONFIG_FILE)
    return replace(
        _checkpoint(name, folder, read_weights(path), config),
        whole_folder=path.name.endswith(".index.json"),
    )


def _checkpoint(name: str, folder: Path, found: Weights, config: dict[str, Any]) -> Checkpoint:
    refuse_empty(folder, found)
    refuse_factors(folder, found)
    return Checkpoint(
        name,
        folder,
        found.place,
        found.tensors,
        config,
        warnings=found.warnings,
        headers=found.headers,
    )


def open_expert(expert: Path, base: Path, options: OpenOptions | None = None) -> Checkpoint:
    """A fine-tuned model, or an adapter on a base, whatever base the adapter names.

    Raises:
        MissingInputError, InputError: As for `open_checkpoint`.
    """
    if not is_adapter(expert):
        return open_checkpoint(str(expert), options)
    with _permitted(str(expert)):
        return _adapted(f"{base}+{expert}", str(base), expert.resolve(), options or OpenOptions())


def _folder_of(name: str, options: OpenOptions) -> Path:
    path = input_path(name)
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise InputError(f"adapter `{name}` is a file", "give the folder that holds it")
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
    file = _adapter_file(folder)
    if file is None:
        raise MissingInputError(
            f"`{folder}` has no {_ADAPTER_FILES[0]}",
            "give the folder that `save_pretrained` of peft wrote",
        )
    found = read_weights(file)
    refuse_empty(folder, found)
    adapter = Checkpoint(str(folder), folder, file, found.tensors, config, headers=found.headers)
    upon = InputError(
        f"model `{name}`: the base `{base}` has an adapter of its own",
        "merge that into its base by peft's `merge_and_unload` first",
    )
    # Before it is opened: adapters may name each other, or themselves.
    if Path(base).is_dir() and is_adapter(Path(base)):
        raise upon
    below = open_checkpoint(base, options) if given else _trained_on(base, folder, options)
    if below.is_adapted:
        raise upon
    return adapted(name, below, adapter, options.lora)


def _adapter_file(folder: Path) -> Path | None:
    files = [folder / file for file in _ADAPTER_FILES if (folder / file).is_file()]
    return files[0] if files else None


def _trained_on(base: str, folder: Path, options: OpenOptions) -> Checkpoint:
    """The base that an adapter names; QLoRA's is quantised, and another than the merge's."""
    by_name = is_quantised_id(base) and not Path(base).is_dir()
    try:
        return open_checkpoint(base, replace(options, download=False) if by_name else options)
    except (QuantisedError, MissingInputError) as error:
        if isinstance(error, MissingInputError) and not by_name:
            raise MissingInputError(
                f"`{folder}`: the base that the adapter names: {error.message}",
                f"{error.hint}; another place is written as `base+adapter`",
            ) from error
        raise InputError(
            f"`{folder}`: the adapter was trained on `{base}`, which is quantised",
            "write `base+adapter` with the folder or hub id of the unquantised base",
        ) from error


def _own_base(folder: Path, config: dict[str, Any]) -> str:
    """The base that an adapter names: a path from here, in or beside its folder, or a hub id."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise InputError(
            f"`{folder}`: the adapter names no base", "write `base+adapter` with the base's folder"
        )
    if not Path(named).is_dir():
        there = [place / named for place in (folder, folder.parent) if (place / named).is_dir()]
        if there:
            return str(there[0])
    if not Path(named).is_dir() and not is_hub_id(named):
        raise MissingInputError(
            f"`{folder}`: the adapter's base `{named}` is not here",
            "write `base+adapter` with the base's folder",
        )
    revision = config.get("revision")
    return f"{named}@{revision}" if revision and not Path(named).is_dir() else named
