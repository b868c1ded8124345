"""Checkpoints as merges see them: headers and `config.json`, no weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.checkpoints.dtypes import SCALED
from mergeplan.checkpoints.head_names import may_be_of_words
from mergeplan.checkpoints.lfs import refuse_pointer
from mergeplan.checkpoints.plan_models import (
    Cast,
    Derived,
    Files,
    Listed,
    ListedTensor,
    Lora,
    Made,
    Model,
    Same,
    Scaled,
    Scales,
    TensorRef,
)
from mergeplan.errors import InputError
from mergeplan.system.jsontext import parse_json
from mergeplan.system.pathtext import path_text
from mergeplan.system.reading import SETTINGS, read_bytes

if TYPE_CHECKING:
    from mergeplan._native import Headers

# Files of a checkpoint, as the hub lays them out.
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INDEX_ENDING = ".safetensors.index.json"
_DIFFUSERS = "diffusion_pytorch_model"


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of a tensor.

    Attributes:
        dtype: safetensors' name.
        file: Relative to the checkpoint's folder, or absolute.
        offset: First byte in a file of another format; `None` in a safetensors file.
        plain_dtype: The dtype of the base's tensor that this one adapts; `None` for others.
    """

    dtype: str
    shape: tuple[int, ...]
    file: str
    n_bytes: int
    offset: int | None = None
    plain_dtype: str | None = None

    @property
    def n_elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of another checkpoint."""

    checkpoint: "Checkpoint"
    tensor: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a tensor that is stored nowhere is computed; see `rust/core/src/plan/models.rs`.

    Attributes:
        kind: `same` and `cast` of one tensor; `lora` of x, A and B; `dequantised` of an 8-bit
            tensor and its scales.
        dtype: Torch name of what the result is rounded to; `None` for `same`.
    """

    kind: str
    parts: tuple[Part, ...]
    scale: float = 1.0
    dtype: str | None = None
    transposed: bool = False

    def planned(self, numbers: Mapping[int, int]) -> Made:
        """As the plan has it.

        Args:
            numbers: Of the plan's models, by the `id` of the parts' checkpoints: hashing the keys
                of half a million parts takes longer than all the rest of planning.
        """
        x, *factors = (TensorRef(numbers[id(p.checkpoint)], p.tensor) for p in self.parts)
        if self.dtype is None:
            return Same(x.model, x.tensor)
        if not factors:
            return Cast(x.model, x.tensor, self.dtype)
        a, b = factors
        return Lora(x.model, x.tensor, a, b, self.scale, self.dtype, self.transposed)


class Computed(dict[str, Derivation]):
    """How each tensor of a checkpoint is computed; empty for one that is stored."""

    @cached_property
    def checkpoints(self) -> list["Checkpoint"]:
        """Those of all parts, each once; several may be one by `key`."""
        parts = (part.checkpoint for how in self.values() for part in how.parts)
        return list({id(one): one for one in parts}.values())

    @cached_property
    def changes_values(self) -> bool:
        """Whether some tensor is another than any stored one, as by an adapter."""
        return any(how.kind != "same" for how in self.values())

    def planned(self, numbers: Mapping[int, int]) -> Derived:
        """As the plan has it; `numbers` as for `Derivation.planned`."""
        return Derived({name: how.planned(numbers) for name, how in self.items()})


@dataclass(frozen=True)
class Dequantised(Mapping[str, Derivation]):
    """The tensors of a checkpoint with its 8-bit ones times their scales, each told when asked for.

    Attributes:
        stored: Where all of them lie.
        tensors: Their names.
        dtype: Torch name of what the products are rounded to.
        kinds: The shapes that there are.
    """

    stored: "Checkpoint"
    tensors: Mapping[str, object]
    dtype: str
    kinds: tuple[Scales, ...]
    changes_values = False

    def __getitem__(self, name: str) -> Derivation:
        part, stored = Part(self.stored, name), self.stored.tensors
        if name not in self.tensors:
            raise KeyError(name)
        if stored[name].dtype not in SCALED:
            return Derivation("same", (part,))
        endings = {kind.ending for kind in self.kinds}
        scales = next(name + ending for ending in endings if name + ending in stored)
        return Derivation("dequantised", (part, Part(self.stored, scales)), dtype=self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def checkpoints(self) -> list["Checkpoint"]:
        return [self.stored]

    def planned(self, numbers: Mapping[int, int]) -> Scaled:
        return Scaled(numbers[id(self.stored)], self.dtype, self.kinds)


# What makes two checkpoints the same: whether it is computed, what the core opens, and all files.
Key = tuple[bool, Path, tuple[Path, ...]]


@dataclass(frozen=True)
class Checkpoint:
    """A model: headers and `config.json`, no weights.

    Attributes:
        name: As the config writes it.
        path: Absolute folder, of the base where an adapter is added to it.
        weights: What is opened: an index or a file; all files where shards have no index.
        config: Contents of `config.json`; empty where there is none.
        made: How each tensor is computed, where none is stored; else empty.
        own_names: What the files call a tensor that `tensors` has under another name.
        warnings: About its files: what is read unasked, and what is passed over.
        whole_folder: Whether a folder was given, not a file in it.
        headers: Of `weights`, where the core has read them.
    """

    name: str
    path: Path
    weights: Path | tuple[Path, ...]
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    made: Computed | Dequantised = field(default_factory=Computed)
    own_names: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    whole_folder: bool = True
    headers: "Headers | None" = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"headers": None}

    def own_name(self, tensor: str) -> str:
        return self.own_names.get(tensor, tensor)

    @property
    def is_adapted(self) -> bool:
        """Whether an adapter is added to it."""
        return self.made.changes_values

    @cached_property
    def sources(self) -> list["Checkpoint"]:
        """The checkpoints that this one is read from: itself, where it is stored."""
        return list({one.key: one for one in self.made.checkpoints}.values()) or [self]

    @cached_property
    def files(self) -> list[Path]:
        """All files that hold its tensors, sorted; an adapter's come last."""
        if self.made:
            files = [file for source in self.sources for file in source.files]
            return list(dict.fromkeys(files))
        return [self.path / name for name in sorted({t.file for t in self.tensors.values()})]

    @cached_property
    def key(self) -> Key:
        """What makes two checkpoints the same."""
        return (bool(self.made), self.path, tuple(self.files))

    @cached_property
    def of_words(self) -> tuple[str, ...]:
        """The tensors that may be heads or embeddings, by their names."""
        return tuple(filter(may_be_of_words, self.tensors))

    @property
    def stem(self) -> str:
        """How the names of the files begin that its loader looks for."""
        names = [Path(file).name for file in {tensor.file for tensor in self.tensors.values()}]
        of_diffusers = self.is_component or any(name.startswith(_DIFFUSERS) for name in names)
        return _DIFFUSERS if of_diffusers else "model"

    @property
    def is_component(self) -> bool:
        """Whether it is a part of a diffusers pipeline."""
        return "_class_name" in self.config

    def planned(self, keys: Mapping[Key, int]) -> Model:
        """This checkpoint as the plan lists it among its models.

        Args:
            keys: The models' numbers, by `key`.
        """
        if self.made:
            return self.made.planned({id(one): keys[one.key] for one in self.made.checkpoints})
        if any(tensor.offset is not None for tensor in self.tensors.values()):
            listed = {
                name: ListedTensor(
                    path_text(self.path / tensor.file),
                    tensor.dtype,
                    tensor.shape,
                    tensor.offset or 0,
                )
                for name, tensor in self.tensors.items()
            }
            return Listed(path_text(self.path), listed)
        if isinstance(self.weights, tuple):
            return Files(path_text(self.path), tuple(map(path_text, self.weights)))
        return path_text(self.weights)


def with_sources(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The models of a plan: the checkpoints in order, then what others are computed from."""
    found = list(checkpoints)
    keys = {checkpoint.key for checkpoint in checkpoints}
    # What a model is computed from may be computed itself: the list grows while it is read.
    for checkpoint in found:
        for source in checkpoint.sources:
            if source.key not in keys:
                keys.add(source.key)
                found.append(source)
    return found


def planned_models(checkpoints: Sequence[Checkpoint]) -> tuple[Model, ...]:
    """The `models` of a plan."""
    models = with_sources(checkpoints)
    keys = {model.key: number for number, model in enumerate(models)}
    return tuple(model.planned(keys) for model in models)


def read_model_config(path: Path) -> dict[str, Any]:
    """The contents of `config.json` or its like; empty where there is none.

    Raises:
        InputError: It cannot be read, or is no JSON object.
    """
    if not path.exists():
        return {}
    raw = read_bytes(path, SETTINGS)
    try:
        config = parse_json(raw, f"`{path}`")
    except InputError:
        refuse_pointer(path)
        raise
    if not isinstance(config, dict):
        raise InputError(f"`{path}`: expected a JSON object")
    return config


def refuse_duplicates(checkpoints: list[Checkpoint]) -> None:
    seen: dict[Key, str] = {}
    for checkpoint in checkpoints:
        other = seen.setdefault(checkpoint.key, checkpoint.name)
        if other != checkpoint.name:
            raise InputError(f"models `{other}` and `{checkpoint.name}` are the same folder")
