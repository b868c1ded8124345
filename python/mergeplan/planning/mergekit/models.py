"""Our checkpoints as mergekit's models: it sees their names and configs, and no weight."""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from mergekit.common import ModelPath, ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from pydantic import BaseModel

from mergeplan.checkpoints.checkpoint import Checkpoint


class OpenModel(ModelReference):  # type: ignore[misc]
    """A model whose checkpoint is open: nothing is downloaded, merged or indexed again."""

    def merged(self, *_: object, **__: object) -> "OpenModel":
        return self

    def local_path(self, *_: object, **__: object) -> str:
        return str(self.model.path)

    def lazy_loader(self, *_: object, **__: object) -> Any:
        return LoaderCache().get(self)


class CheckpointLoader:
    """What mergekit asks of a checkpoint: names, and for a fallback tensors.

    Args:
        read: Gives a tensor by its name.
    """

    def __init__(self, checkpoint: Checkpoint, read: Callable[[str], Any]) -> None:
        files = {name: tensor.file for name, tensor in checkpoint.tensors.items()}
        self.index = SimpleNamespace(base_path=str(checkpoint.path), tensor_paths=files)
        self._read = read

    def get_tensor(self, key: str, device: str = "cpu", **_: object) -> Any:
        return self._read(key).to(device)

    def flush(self) -> None:
        """Nothing is held."""


@contextlib.contextmanager
def loaders(of: dict[OpenModel, CheckpointLoader]) -> Iterator[None]:
    """Make mergekit's loaders, which it keeps in one table for the whole process, ours alone."""
    before = LoaderCache.loaders
    LoaderCache.loaders = dict(of)
    try:
        yield
    finally:
        LoaderCache.loaders = before


class OrderedConfiguration(MergeConfiguration):  # type: ignore[misc]
    """A configuration whose models have an order: mergekit keeps them in a set, and takes the donor
    of config and tokenizer from it by chance."""

    def referenced_models(self) -> list[ModelReference]:
        return references_of(self)


def references_of(config: MergeConfiguration) -> list[ModelReference]:
    """Every model that is merged, in the order of the config; a base that stands nowhere else last,
    as where we plan ourselves."""
    sources = [*(config.models or []), *_sources(config.slices)]
    for module in (config.modules or {}).values():
        sources += [*(module.models or []), *_sources(module.slices)]
    found = [source.model for source in sources]
    found += [config.base_model] if config.base_model else []
    return list(dict.fromkeys(found))


def _sources(slices: list[Any] | None) -> list[Any]:
    return [source for part in slices or [] for source in part.sources]


def open_model(reference: ModelReference, checkpoint: Checkpoint) -> OpenModel:
    """A reference to an open checkpoint's folder; an adapter stays part of its identity."""
    return OpenModel(
        model=ModelPath(path=str(checkpoint.path)),
        lora=reference.lora,
        override_architecture=reference.override_architecture,
    )


def with_models(value: Any, models: dict[ModelReference, OpenModel]) -> Any:
    """A configuration, or a part of one, with each reference replaced."""
    if isinstance(value, ModelReference):
        return models.get(value, value)
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return value.model_copy(update={k: with_models(v, models) for k, v in fields.items()})
    if isinstance(value, dict):
        return {key: with_models(entry, models) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(with_models(entry, models) for entry in value)
    return value
