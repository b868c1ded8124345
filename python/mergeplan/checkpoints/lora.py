"""LoRA experts: a base and a PEFT adapter, whose sum is computed while it streams.

As peft's `merge_and_unload`: x + s·B·A in float32, rounded to the base tensor's dtype. Adapters
that peft would merge in another way are refused by name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    Derivation,
    Part,
    Tensor,
    read_model_config,
)
from mergeplan.checkpoints.dtypes import FLOATS, STORED_NAMES, bits_of
from mergeplan.checkpoints.heads import embedding_of, head_name, ties
from mergeplan.errors import InputError, MissingInputError

CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<plain>[AB])(?:\.[^.]+)?\.weight"
    r"|lora_embedding_(?P<embedding>[AB])(?:\.[^.]+)?(?:\.weight)?)"
)
# Settings that change what an adapter's tensors mean, and are not supported.
_REFUSED = {
    "use_dora": "DoRA scales every row by its norm",
    "alora_invocation_tokens": "an activated LoRA depends on the prompt",
    "arrow_config": "Arrow routes between adapters",
    "lora_bias": "the update has a bias of its own",
    "target_parameters": "parameters are adapted in place of modules",
    "layer_replication": "layers are repeated",
    "trainable_token_indices": "single tokens are replaced",
    "use_bdlora": "the factors are block-diagonal",
    "use_qalora": "the factors are pooled",
    "kasa_config": "the update is scaled by singular values",
}

_BY_PEFT = "merge it into its base by peft's `merge_and_unload` first"
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LoraOptions:
    """How base and adapter are added.

    Attributes:
        merge_dtype: Torch name of what the sum is rounded to; `None` for the base tensor's dtype.
        exact: Keep the sum in float32. In 16 bits small updates vanish where they are rounded.
    """

    merge_dtype: str | None = None
    exact: bool = False


@dataclass
class _Factors:
    """The tensors of one module's update."""

    a: str | None = None
    b: str | None = None
    is_embedding: bool = False


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter, and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / CONFIG_FILE).is_file()


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


def adapted(name: str, base: Checkpoint, adapter: Checkpoint, options: LoraOptions) -> Checkpoint:
    """The checkpoint that merging an adapter into its base would write, written nowhere.

    Args:
        name: As the config writes it.
        adapter: Its tensors; `config` is that of adapter_config.json.

    Raises:
        InputError: The adapter does not fit its base, or is of a kind that is not supported.
    """
    config = adapter.config
    _check_kind(adapter)
    updates, replaced = _sorted(adapter)
    tensors = {
        key: replace(tensor, file=str(base.path / tensor.file))
        for key, tensor in base.tensors.items()
    }
    derivations: dict[str, Derivation] = {
        key: Derivation("same", (Part(base, key),)) for key in tensors
    }
    for module, factors in updates.items():
        target = _target(f"{module}.weight", base, adapter)
        stored = base.tensors[target]
        # Embeddings are saved whole beside their factors.
        whole = replaced.pop(f"{module}.weight", None)
        _check_whole(whole, target, base, adapter)
        x = Part(base, target) if whole is None else Part(adapter, whole)
        _check_factors(module, factors, target, base, adapter)
        transposed = factors.is_embedding or bool(config.get("fan_in_fan_out"))
        _check_shapes(factors, transposed, target, base, adapter)
        rank = adapter.tensors[factors.a or ""].shape[0]
        dtype = _sum_dtype(stored.dtype, options)
        derivations[target] = Derivation(
            "lora",
            (x, Part(adapter, factors.a or ""), Part(adapter, factors.b or "")),
            scale=_scale(module, rank, adapter),
            dtype=dtype,
            transposed=transposed,
        )
        tensors[target] = _as(tensors[target], dtype, stored.dtype if options.exact else None)
    for module_tensor, key in replaced.items():
        target = _target(module_tensor, base, adapter)
        stored = base.tensors[target]
        _check_whole(key, target, base, adapter)
        dtype = _sum_dtype(stored.dtype, options)
        derivations[target] = Derivation("cast", (Part(adapter, key),), dtype=dtype)
        tensors[target] = _as(tensors[target], dtype, stored.dtype if options.exact else None)
    _refuse_parted_heads(derivations, base, adapter)
    return Checkpoint(
        name=name,
        path=base.path,
        weights=base.weights,
        tensors=tensors,
        config=base.config,
        made=derivations,
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


def _check_kind(adapter: Checkpoint) -> None:
    kind = adapter.config.get("peft_type")
    where = f"`{adapter.path / CONFIG}`"
    if kind != "LORA":
        raise InputError(
            f"{where}: expected `peft_type` LORA, found {kind}",
            _BY_PEFT,
        )
    for key, why in _REFUSED.items():
        if adapter.config.get(key):
            raise InputError(
                f"{where}: `{key}` is set: {why}, which is not computed while streaming",
                _BY_PEFT,
            )
    init = str(adapter.config.get("init_lora_weights")).lower()
    if init.startswith(_CHANGE_THE_BASE):
        raise InputError(
            f"{where}: `init_lora_weights: {init}` takes a part out of the base, to which the"
            " adapter is then added",
            "save it as a plain LoRA: peft's `path_initial_model_for_weight_conversion` does that",
        )


def _check_whole(key: str | None, target: str, base: Checkpoint, adapter: Checkpoint) -> None:
    """A tensor that replaces the base's, if there is one, has its shape."""
    if key is None:
        return
    stored, own = base.tensors[target], adapter.tensors[key]
    if own.shape != stored.shape:
        raise InputError(
            f"`{adapter.path / own.file}`: tensor `{key}`: expected shape"
            f" {list(stored.shape)} as in `{base.name}`, found {list(own.shape)}",
            "an adapter with a vocabulary of its own: merge it by peft's `merge_and_unload` first",
        )


def _sorted(adapter: Checkpoint) -> tuple[dict[str, _Factors], dict[str, str]]:
    """The adapter's tensors: factors by module, and whole tensors by the name in the base.

    `original_module` is the base's own, untrained: peft does not merge it, and neither do we.

    Raises:
        InputError: Two keys stand for one tensor, or a kind of LoRA is not supported.
    """
    updates: dict[str, _Factors] = {}
    replaced: dict[str, str] = {}
    for key in adapter.tensors:
        own = key.removeprefix(_PREFIX)
        if "original_module" in own.split("."):
            continue
        match = _FACTOR.fullmatch(own)
        if match is None:
            if ".lora_" in own:
                raise InputError(
                    f"`{adapter.path}`: tensor `{key}` belongs to a kind of LoRA that is not"
                    " computed while streaming",
                    _BY_PEFT,
                )
            name = _without_wrappers(own)
            _refuse_twice(adapter, key, replaced.get(name))
            replaced[name] = key
            continue
        factors = updates.setdefault(_without_wrappers(match["module"]), _Factors())
        factors.is_embedding = match["embedding"] is not None
        which = "a" if (match["plain"] or match["embedding"]) == "A" else "b"
        _refuse_twice(adapter, key, getattr(factors, which))
        setattr(factors, which, key)
    return updates, replaced


def _refuse_twice(adapter: Checkpoint, key: str, other: str | None) -> None:
    """Which of two keys holds what was trained is not to be guessed from their order."""
    if other is not None:
        raise InputError(
            f"`{adapter.path}`: `{other}` and `{key}` stand for one tensor of the base",
            "save the adapter again by peft's `save_pretrained`",
        )


def _without_wrappers(name: str) -> str:
    """A name without what peft puts between a module and its weight."""
    name = re.sub(r"\.modules_to_save(\.default)?(?=\.|$)", "", name)
    return re.sub(r"\.base_layer(?=\.|$)", "", name)


def _target(name: str, base: Checkpoint, adapter: Checkpoint) -> str:
    """The base's tensor of a name.

    A model with a head is adapted under other names than its trunk alone: one of two may have a
    prefix more.
    """
    if name in base.tensors:
        return name
    found = [key for key in base.tensors if key.endswith(f".{name}") or name.endswith(f".{key}")]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"`{adapter.path}`: the adapter changes `{name}`, which `{base.name}` does not have",
        _other_base(base, adapter),
    )


def _other_base(base: Checkpoint, adapter: Checkpoint) -> str:
    trained = adapter.config.get("base_model_name_or_path")
    return f"it was trained on `{trained}`: is `{base.name}` the same model?"


def _check_factors(
    module: str, factors: _Factors, target: str, base: Checkpoint, adapter: Checkpoint
) -> None:
    if factors.a is None or factors.b is None:
        lacking = "A" if factors.a is None else "B"
        raise MissingInputError(f"`{adapter.path}`: `{module}` has no factor {lacking}")
    for checkpoint, key in ((base, target), (adapter, factors.a), (adapter, factors.b)):
        tensor = checkpoint.tensors[key]
        if tensor.dtype not in FLOATS:
            raise InputError(
                f"`{checkpoint.path / tensor.file}`: tensor `{key}`: expected dtype F32, BF16 or"
                f" F16, found {tensor.dtype}",
                "adapt the base in a floating-point dtype",
            )


def _check_shapes(
    factors: _Factors, transposed: bool, target: str, base: Checkpoint, adapter: Checkpoint
) -> None:
    a, b = (adapter.tensors[key or ""].shape for key in (factors.a, factors.b))
    shape = base.tensors[target].shape
    made = (b[0], a[1]) if len(a) == len(b) == 2 and a[0] == b[1] else None
    if made is not None and transposed:
        made = made[::-1]
    if made != shape:
        raise InputError(
            f"`{adapter.path}`: factors of `{target}`: expected shapes whose product is"
            f" {list(shape)} as in `{base.name}`, found A {list(a)} and B {list(b)}",
            _other_base(base, adapter) if len(shape) == 2 else "only matrices can be adapted",
        )


def _scale(module: str, rank: int, adapter: Checkpoint) -> float:
    """s: alpha / rank, or alpha / sqrt(rank) for rsLoRA, with this module's own alpha."""
    config = adapter.config
    where = f"`{adapter.path / CONFIG}`"
    asked = _of_pattern(config.get("rank_pattern"), module, config.get("r"), where)
    if asked != rank:
        raise InputError(f"{where}: `{module}`: expected rank {asked}, found factors of {rank}")
    alpha = _of_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha"), where)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise InputError(f"{where}: `lora_alpha`: expected a number, found {alpha}")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(pattern: object, module: str, default: object, where: str) -> object:
    """The value of the first pattern that ends a module's name, as in peft."""
    if not isinstance(pattern, Mapping):
        return default
    for key, value in pattern.items():
        try:
            if re.fullmatch(rf"(.*\.)?({key})", module):
                return value
        except re.error as error:
            raise InputError(f"{where}: `{key}` is no pattern: {error}") from error
    return default


def _refuse_parted_heads(
    derivations: Mapping[str, Derivation], base: Checkpoint, adapter: Checkpoint
) -> None:
    """A tied embedding and head are one tensor: an update of one would change the other, or not."""
    head = head_name(base)
    if head is None or not ties(base):
        return
    embedding = embedding_of(head, base.tensors) or head
    changed = [derivations[n].kind != "same" for n in (embedding, head) if n in derivations]
    if any(changed):
        raise InputError(
            f"`{adapter.path}`: the adapter changes `{embedding}`, which `{base.name}`"
            " ties to its head",
            "merge it into its base by peft's `merge_and_unload` first, untied",
        )
