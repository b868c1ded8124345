"""Quantised checkpoints: fp8 with scales is read, every other kind is named and refused.

What a kind stores is told by `quantization_config` and by the names of its tensors: configs are
lost when models are saved anew, and names alone say nothing of a kind that nobody has met.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, Checkpoint, Dequantised, Tensor
from mergeplan.checkpoints.dtypes import BUFFERS, FLOATS, SCALED, STORED_NAMES, bits_of
from mergeplan.checkpoints.passed_over import is_running_scale
from mergeplan.checkpoints.plan_models import Scales
from mergeplan.checkpoints.scales import block_sides, blocks_of, find_scales, is_block, is_scale
from mergeplan.display.text import cut
from mergeplan.errors import InputError

# Where config.json says how a model is quantised; the second is compressed-tensors' old name.
SETTINGS = ("quantization_config", "compression_config")

# The tensors by which the kinds are known: what stands behind the last point of their names.
_MARKS = {
    **dict.fromkeys(("absmax", "quant_map", "nested_absmax", "nested_quant_map"), "bitsandbytes"),
    **dict.fromkeys(("bitsandbytes__nf4", "bitsandbytes__fp4"), "bitsandbytes"),
    **dict.fromkeys(("SCB", "weight_format"), "bitsandbytes"),
    **dict.fromkeys(("qweight", "qzeros", "g_idx"), "GPTQ or AWQ"),
    **dict.fromkeys(("weight_packed", "weight_shape"), "compressed-tensors"),
    **dict.fromkeys(("weight_zero_point", "weight_g_idx"), "compressed-tensors"),
    **dict.fromkeys(("weight_scale_2", "weight_global_scale", "pre_quant_scale"), "ModelOpt"),
}
# Ends of names that other models give to what is not quantised: matrices of integers alone, and of
# no more bits than values are packed into. Codebooks alone are those of audio models.
_INTEGER_MARKS = {
    "_blocks": "MXFP4",
    ".W_q": "HQQ",
    ".codes": "AQLM",
    "_qdata": "torchao",
    "._data": "quanto",
    ".weight": "",
}
_INTEGERS = BUFFERS - {"BOOL", "I64", "U64"}
_QUANTISED_ID = re.compile(r"[-_.](bnb|[48]-?bits?|int[48]|gptq|awq|w[48]a(8|16))\b", re.IGNORECASE)
_WAY_OUT = (
    "give the unquantised original; or, where transformers can dequantise it, load it by"
    " `from_pretrained`, call `model.dequantize()`, and save it by `save_pretrained` in bfloat16"
)


class QuantisedError(InputError):
    """A model that is quantised in a way that merges do not read."""


def is_quantised_id(name: str) -> bool:
    """Whether a model's name says that it is quantised.

    >>> is_quantised_id("unsloth/llama-3-8b-bnb-4bit"), is_quantised_id("unsloth/llama-3-8b")
    (True, False)
    """
    return _QUANTISED_ID.search(name.partition("@")[0]) is not None


def readable(stored: Checkpoint) -> Checkpoint:
    """A checkpoint as merges read it: an 8-bit tensor with scales is one of config.json's dtype.

    Raises:
        InputError: What config.json says of it has no meaning.
        QuantisedError: It is quantised in a way that is not read.
    """
    if stored.made:
        return stored
    _check_settings(stored)
    kind = next((_kind_of(found) for found in settings_of(stored.config)), None)
    eights = []
    given = set()
    # Of a hundred thousand tensors few are not alike, and those that are share an object.
    alike = {id(tensor): tensor for tensor in stored.tensors.values()}
    odd = {place for place, tensor in alike.items() if _may_be_marked(tensor)}
    eight = {place for place, tensor in alike.items() if tensor.dtype in SCALED}
    for name, tensor in stored.tensors.items():
        ending = name.rpartition(".")[2]
        if ending in _MARKS or id(tensor) in odd:
            mark = _mark_of(name, tensor)
            if mark is not None:
                _refuse_tensor(stored, name, f"of {kind or mark or 'a quantised model'}")
        if is_scale(ending):
            given.add(name)
        elif id(tensor) in eight:
            eights.append(name)
    scales = {name: find_scales(stored, name, _WAY_OUT) for name in eights}
    for name in sorted(given - set(scales.values())):
        _refuse_tensor(stored, name, "of scales whose weights are not F8")
    if not scales and kind is None:
        return stored
    if not scales:
        raise QuantisedError(
            f"`{stored.path / CONFIG_FILE}`: `quantization_config`: expected none, or fp8 with"
            f" scales, found {kind}",
            f"{_WAY_OUT}; where its tensors are plain, take the entry out of config.json",
        )
    _refuse_rotated(stored)
    return _dequantised(stored, scales)


def settings_of(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a config says of quantisation, at its top or for a part (`text_config`)."""
    found = (value for _, value in _entries(config))
    return (dict(value) for value in found if isinstance(value, Mapping) and value)


def _entries(config: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Each entry about quantisation, whatever it is, under the keys that lead to it."""
    for key, value in config.items():
        if key in SETTINGS and value is not None:
            yield place + key, value
        elif isinstance(value, Mapping):
            yield from _entries(value, f"{place}{key}.")


def without_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config that says nothing of quantisation, for tensors that are not quantised."""
    return {
        key: without_settings(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in SETTINGS
    }


def stated_dtype(config: Mapping[str, Any]) -> str:
    """Torch name of the dtype that the values are rounded to; bfloat16 where none is said."""
    text = config.get("text_config")
    for place in (config, text if isinstance(text, Mapping) else {}):
        for key in ("dtype", "torch_dtype"):
            name = str(place.get(key)).removeprefix("torch.")
            if name in FLOATS.values():
                return name
    return "bfloat16"


def _check_settings(stored: Checkpoint) -> None:
    """Refuse what would be passed over, as if it were not there."""
    for key, value in _entries(stored.config):
        if not isinstance(value, Mapping):
            _refuse_entry(stored, key, "a mapping", value)
        block = value.get("weight_block_size")
        if block is not None and not is_block(block):
            expected = "the rows and columns of a block, such as [128, 128]"
            _refuse_entry(stored, f"{key}.weight_block_size", expected, block)


def _refuse_entry(stored: Checkpoint, key: str, expected: str, found: Any) -> NoReturn:
    raise InputError(
        f"`{stored.path / CONFIG_FILE}`: `{key}`: expected {expected}, found"
        f" `{cut(json.dumps(found), 80)}`",
        "fetch config.json again, or take the entry out: blocks are 128 x 128 where it says none",
    )


def _dequantised(stored: Checkpoint, scales: Mapping[str, str]) -> Checkpoint:
    dtype = stated_dtype(stored.config)
    plain = STORED_NAMES[dtype]
    blocks = blocks_of(list(settings_of(stored.config)))
    tensors: dict[str, Tensor] = {}
    used = set(scales.values())
    # Of a hundred thousand tensors few are not alike, and those that are share an object.
    once: dict[tuple[int, int, str], Tensor] = {}
    kinds: list[Scales] = []
    for name, tensor in stored.tensors.items():
        if name in used or is_running_scale(name):
            continue
        if name not in scales:
            tensors[name] = tensor
            continue
        its_scales = stored.tensors[scales[name]]
        ending = scales[name].removeprefix(name)
        kind = id(tensor), id(its_scales), ending
        if kind not in once:
            n_bytes = tensor.n_elements * bits_of(plain) // 8
            once[kind] = Tensor(plain, tensor.shape, tensor.file, n_bytes, tensor.offset)
            block = block_sides(stored, name, scales[name], blocks)
            kinds.append(Scales(tensor.shape, ending, its_scales.shape, block))
        tensors[name] = once[kind]
    made = Dequantised(stored, tensors, dtype, tuple(dict.fromkeys(kinds)))
    config = without_settings(stored.config)
    if config:
        config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    return replace(stored, tensors=tensors, config=config, made=made)


def _may_be_marked(tensor: Tensor) -> bool:
    """Whether tensors of its dtype and sides tell a kind of quantisation under some name."""
    if tensor.dtype in _INTEGERS:
        return len(tensor.shape) > 1
    return tensor.dtype.startswith(("F4", "F6_", "F8_")) and tensor.dtype not in SCALED


def _mark_of(name: str, tensor: Tensor) -> str | None:
    """The kind of quantisation that has tensors of this name; empty where it could be any."""
    if (mark := _MARKS.get(name.rpartition(".")[2])) is not None:
        return mark
    if tensor.dtype in _INTEGERS and len(tensor.shape) > 1:
        for ending, kind in _INTEGER_MARKS.items():
            if f".{name}".endswith(ending):
                return kind
    # Dtypes of which several make one value, or that hold nothing but scales.
    if tensor.dtype.startswith(("F4", "F6_", "F8_")) and tensor.dtype not in SCALED:
        return ""
    return None


def _refuse_tensor(stored: Checkpoint, name: str, found: str) -> None:
    tensor = stored.tensors[name]
    raise QuantisedError(
        f"`{stored.path / tensor.file}`: tensor `{name}`: expected plain weights, or F8 with"
        f" scales, found {tensor.dtype} {found}",
        _WAY_OUT,
    )


def _refuse_rotated(stored: Checkpoint) -> None:
    """compressed-tensors may store weights in another basis, which activations are turned to."""
    for settings in settings_of(stored.config):
        transform = settings.get("transform_config")
        if isinstance(transform, Mapping) and transform.get("config_groups"):
            raise QuantisedError(
                f"`{stored.path / CONFIG_FILE}`: `transform_config`: the weights are rotated, which"
                " is not undone here",
                _WAY_OUT,
            )


def _kind_of(settings: Mapping[str, Any]) -> str:
    method = settings.get("quant_method") or settings.get("quant_algo")
    if method is None and any(key.startswith("load_in_") for key in settings):
        method = "bitsandbytes"
    bits = next((b for b in (4, 8) if settings.get(f"load_in_{b}bit")), settings.get("bits"))
    form = settings.get("format")
    more = f"{bits} bits" if isinstance(bits, int) else form if isinstance(form, str) else ""
    return f"{method or 'an unnamed method'}" + (f" ({more})" if more else "")
