"""LoRA experts: a base and a PEFT adapter, whose sum is computed while it streams.

As peft's `merge_and_unload`: x + s·B·A in float32, rounded to the base tensor's dtype. Adapters
that peft would merge in another way are refused by name.
"""

from dataclasses import dataclass, replace

from mergeplan.checkpoints.adapters.keys import Change, read_changes
from mergeplan.checkpoints.adapters.places import other_base, place
from mergeplan.checkpoints.adapters.settings import Scales, check_kind
from mergeplan.checkpoints.adapters.tied import said, settle, tie_of
from mergeplan.checkpoints.checkpoint import Checkpoint, Computed, Derivation, Part, Tensor
from mergeplan.checkpoints.dtypes import FLOATS, STORED_NAMES, bits_of
from mergeplan.checkpoints.heads import untied
from mergeplan.errors import InputError, MissingInputError


@dataclass(frozen=True)
class LoraOptions:
    """How base and adapter are added.

    Attributes:
        merge_dtype: Torch name of what the sum is rounded to; `None` for the base tensor's dtype.
        exact: Keep the sum in float32. In 16 bits small updates vanish where they are rounded.
    """

    merge_dtype: str | None = None
    exact: bool = False


def adapted(name: str, base: Checkpoint, adapter: Checkpoint, options: LoraOptions) -> Checkpoint:
    """The checkpoint that merging an adapter into its base would write, written nowhere.

    Args:
        name: As the config writes it.
        adapter: Its tensors; `config` is that of adapter_config.json.

    Raises:
        InputError: The adapter does not fit its base, or is of a kind that is not supported.
    """
    check_kind(adapter)
    scales = Scales(adapter)
    tie = tie_of(base)
    placed = place(read_changes(adapter), tie, base, adapter)
    placed, parts = settle(placed, tie, base, adapter)
    # Where each tensor of the output begins; a head that was tied begins as the embedding.
    starts = {key: key for key in base.tensors}
    if tie is not None and parts:
        starts.setdefault(tie.head, tie.embedding)
    tensors: dict[str, Tensor] = {}
    derivations = Computed()
    for target, start in starts.items():
        stored = base.tensors[start]
        tensors[target] = replace(stored, file=str(base.path / stored.file))
        derivations[target] = Derivation("same", (Part(base, start),))
    for target, change in placed.items():
        stored = base.tensors[starts[target]]
        dtype = _sum_dtype(stored.dtype, options)
        derivations[target] = _derivation(change, starts[target], base, adapter, scales, dtype)
        tensors[target] = _as(tensors[target], dtype, stored.dtype if options.exact else None)
    return Checkpoint(
        name=name,
        path=base.path,
        weights=base.weights,
        tensors=tensors,
        config=untied(base.config) if parts and base.config else base.config,
        made=derivations,
        warnings=(
            *base.warnings,
            *adapter.warnings,
            *said(placed, tie, base, adapter, parts=parts),
        ),
    )


def _derivation(
    change: Change,
    start: str,
    base: Checkpoint,
    adapter: Checkpoint,
    scales: Scales,
    dtype: str,
) -> Derivation:
    """How a tensor that an adapter changes is computed.

    Args:
        start: The base's tensor, which the update is added to.
    """
    _check_whole(change.whole, start, base, adapter)
    # Embeddings are saved whole beside their factors.
    x = Part(base, start) if change.whole is None else Part(adapter, change.whole)
    if change.factors is None:
        return Derivation("cast", (x,), dtype=dtype)
    a, b = _check_factors(change, start, base, adapter)
    transposed = change.is_embedding or bool(adapter.config.get("fan_in_fan_out"))
    _check_shapes(a, b, transposed, start, base, adapter)
    rank = adapter.tensors[a].shape[0]
    return Derivation(
        "lora",
        (x, Part(adapter, a), Part(adapter, b)),
        scale=scales.of(change.module, rank),
        dtype=dtype,
        transposed=transposed,
    )


def _as(tensor: Tensor, dtype: str, plain: str | None) -> Tensor:
    """A tensor in the dtype of its sum.

    Args:
        plain: The dtype that it would have, where it is kept in float32 for exactness.
    """
    stored = STORED_NAMES[dtype]
    n_bytes = tensor.n_elements * bits_of(stored) // 8
    return replace(tensor, dtype=stored, n_bytes=n_bytes, plain_dtype=plain)


def _sum_dtype(stored: str, options: LoraOptions) -> str:
    if options.exact:
        return "float32"
    return options.merge_dtype or FLOATS[stored]


def _check_whole(key: str | None, target: str, base: Checkpoint, adapter: Checkpoint) -> None:
    """A tensor that replaces the base's, if there is one, has its shape."""
    if key is None:
        return
    stored, own = base.tensors[target], adapter.tensors[key]
    if own.shape == stored.shape:
        return
    hint = other_base(base, adapter)
    if own.shape[1:] == stored.shape[1:]:
        hint = (
            "the adapter has a vocabulary of its own: `resize_token_embeddings` the base to"
            f" {own.shape[0]} rows, and merge both by peft's `merge_and_unload` first"
        )
    raise InputError(
        f"`{adapter.path / own.file}`: tensor `{key}`: expected shape"
        f" {list(stored.shape)} as in `{base.name}`, found {list(own.shape)}",
        hint,
    )


def _check_factors(
    change: Change, target: str, base: Checkpoint, adapter: Checkpoint
) -> tuple[str, str]:
    """Both factors' keys."""
    if change.a is None or change.b is None:
        lacking = "A" if change.a is None else "B"
        own = next(key for key in (change.a, change.b) if key is not None)
        raise MissingInputError(
            f"`{adapter.path / adapter.tensors[own].file}`: tensor `{own}`: expected both factors"
            f" of `{change.module}`, found no factor {lacking}",
            "the adapter is incomplete: fetch it again, or save it anew by peft's"
            " `save_pretrained`",
        )
    for checkpoint, key in ((base, target), (adapter, change.a), (adapter, change.b)):
        tensor = checkpoint.tensors[key]
        if tensor.dtype not in FLOATS:
            raise InputError(
                f"`{checkpoint.path / tensor.file}`: tensor `{key}`: expected dtype F32, BF16 or"
                f" F16, found {tensor.dtype}",
                "adapt the base in a floating-point dtype",
            )
    return change.a, change.b


def _check_shapes(
    a: str, b: str, transposed: bool, target: str, base: Checkpoint, adapter: Checkpoint
) -> None:
    first, second = adapter.tensors[a].shape, adapter.tensors[b].shape
    shape = base.tensors[target].shape
    fits = len(first) == len(second) == 2 and first[0] == second[1]
    made = (second[0], first[1]) if fits else None
    if made is not None and transposed:
        made = made[::-1]
    if made != shape:
        raise InputError(
            f"`{adapter.path}`: factors of `{target}`: expected shapes whose product is"
            f" {list(shape)} as in `{base.name}`, found A {list(first)} and B {list(second)}",
            other_base(base, adapter) if len(shape) == 2 else "only matrices can be adapted",
        )
