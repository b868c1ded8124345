"""What a checkpoint's headers and its `config.json` say of it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from mergeplan.checkpoints.checkpoint import Checkpoint, Tensor
from mergeplan.checkpoints.heads import count_params, embedding, head_of
from mergeplan.inspection.on_demand import OnDemand

# The first factor of a module's update, of r rows.
_FACTOR = re.compile(r"(.+)\.lora_(?:embedding_)?A(?:\.|$)")


@dataclass(frozen=True)
class FileFacts:
    """A file of weights."""

    name: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A tensor's header; `dtype` is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    n_bytes: int


@dataclass(frozen=True)
class DtypeShare:
    """What the tensors of one dtype amount to; `share` is that of the bytes, in [0, 1]."""

    dtype: str
    tensors: int
    n_elements: int
    n_bytes: int
    share: float


@dataclass(frozen=True)
class ShapeCount:
    """How many tensors have a shape."""

    shape: tuple[int, ...]
    tensors: int


@dataclass(frozen=True)
class AdapterFacts:
    """A LoRA that is added to a checkpoint.

    Attributes:
        ranks: Of its factors, each once.
        alpha: As its settings have it, or `None`.
        rslora: Whether the update is scaled by alpha over the root of the rank, not over the rank.
        targets: The modules that it changes, by the last part of their names.
        modules: How many they are.
    """

    path: Path
    ranks: tuple[int, ...]
    alpha: float | None
    rslora: bool
    targets: tuple[str, ...]
    modules: int


@dataclass(frozen=True)
class CheckpointFacts:
    """One checkpoint.

    Attributes:
        n_params: Elements of all tensors; a head that `config.json` ties to the embedding counts
            once.
        n_bytes: Bytes of all tensors, without headers.
        dtypes: The most bytes first.
        shapes: Those that hold the most elements first.
        architecture: As `config.json` has it, or `None`.
        vocabulary: Rows of the embedding, or `None`.
        head: See `head_of`.
        adapter: What is added to it, or `None`.
    """

    name: str
    path: Path
    files: tuple[FileFacts, ...]
    n_params: int
    n_bytes: int
    dtypes: tuple[DtypeShare, ...]
    shapes: tuple[ShapeCount, ...]
    architecture: str | None
    vocabulary: int | None
    head: str
    tensors: Sequence[TensorFacts]
    adapter: AdapterFacts | None = None


def checkpoint_facts(checkpoint: Checkpoint) -> CheckpointFacts:
    """Count what a checkpoint holds."""
    tensors = checkpoint.tensors
    architectures = checkpoint.config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return CheckpointFacts(
        name=checkpoint.name,
        path=checkpoint.path,
        files=tuple(FileFacts(path.name, path.stat().st_size) for path in checkpoint.files),
        n_params=count_params(checkpoint),
        n_bytes=sum(tensor.n_bytes for tensor in tensors.values()),
        dtypes=dtype_shares(Counter((t.dtype, t.shape, t.n_bytes) for t in tensors.values())),
        shapes=_shapes(Counter(tensor.shape for tensor in tensors.values())),
        architecture=None if first is None else str(first),
        vocabulary=_vocabulary(checkpoint),
        head=head_of(checkpoint),
        tensors=OnDemand(tuple(tensors), partial(_tensor_facts, tensors)),
        adapter=next(map(_adapter, filter(_is_adapter, checkpoint.sources)), None),
    )


def _is_adapter(source: Checkpoint) -> bool:
    return "peft_type" in source.config


def _adapter(source: Checkpoint) -> AdapterFacts:
    found = {
        module[1]: tensor.shape[0]
        for name, tensor in source.tensors.items()
        if (module := _FACTOR.match(name)) and tensor.shape
    }
    alpha = source.config.get("lora_alpha")
    return AdapterFacts(
        path=source.path,
        ranks=tuple(sorted(set(found.values()))),
        alpha=alpha if isinstance(alpha, int | float) else None,
        rslora=source.config.get("use_rslora") is True,
        targets=tuple(sorted({name.rpartition(".")[2] for name in found})),
        modules=len(found),
    )


def dtype_shares(kinds: Counter[tuple[str, tuple[int, ...], int]]) -> tuple[DtypeShare, ...]:
    """Sum up tensors.

    Args:
        kinds: How many have a dtype, shape and bytes: of a hundred thousand few are not alike.
    """
    total = sum(n_bytes * count for (_, _, n_bytes), count in kinds.items())
    shares = []
    for dtype in sorted({dtype for dtype, _, _ in kinds}):
        of_it = [(shape, each, n) for (found, shape, each), n in kinds.items() if found == dtype]
        n_bytes = sum(each * n for _, each, n in of_it)
        elements = sum(prod(shape) * n for shape, _, n in of_it)
        share = n_bytes / total if total else 0.0
        shares.append(DtypeShare(dtype, sum(n for _, _, n in of_it), elements, n_bytes, share))
    return tuple(sorted(shares, key=lambda share: -share.n_bytes))


def _shapes(counts: Counter[tuple[int, ...]]) -> tuple[ShapeCount, ...]:
    order = sorted(counts, key=lambda shape: (-counts[shape] * prod(shape), shape))
    return tuple(ShapeCount(shape, counts[shape]) for shape in order)


def _tensor_facts(tensors: Mapping[str, Tensor], name: str) -> TensorFacts:
    tensor = tensors[name]
    return TensorFacts(name, tensor.dtype, tensor.shape, tensor.file, tensor.n_bytes)


def _vocabulary(checkpoint: Checkpoint) -> int | None:
    found = embedding(checkpoint)
    return found.shape[0] if found and found.shape else None
