"""Mixtures of experts whose matrices transformers packs into one tensor, by a table of ours.

A checkpoint holds a matrix for each expert; from its version 5 on transformers, and with it
mergekit, holds all of a layer as one: `experts.gate_up_proj` (experts, 2 · intermediate, hidden)
and `experts.down_proj` (experts, hidden, intermediate). A threshold, a norm or a random mask goes
over that whole. Here the parts become one job, whose result is stored under the parts' own names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.plan_models import Concat
from mergeplan.config.methods import Method
from mergeplan.errors import InputError
from mergeplan.planning.derived import DerivedModels
from mergeplan.planning.document import Part
from mergeplan.planning.outputs import Operand, OutputTensor
from mergeplan.planning.pairing import Match


@dataclass(frozen=True)
class Packing:
    """How transformers calls and orders the matrices of a layer's experts.

    Attributes:
        stem: What stands before the number of the expert.
        packed: Name of each packed tensor behind `stem`, and the matrices of an expert in it.
        new_stem: What transformers makes of `stem`.
        kinds: Where experts of several kinds are packed apart, as many of each, one kind behind
            the other: the `new_stem` of each.
    """

    stem: str
    packed: Mapping[str, tuple[str, ...]]
    new_stem: str
    kinds: tuple[str, ...] = ()


_LLAMAS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_MIXTRALS = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}
_QWEN = Packing("mlp.experts", _LLAMAS, "mlp.experts")
_MIXTRAL = Packing("block_sparse_moe.experts", _MIXTRALS, "mlp.experts")
_DEEPSEEK = Packing("ffn.experts", _MIXTRALS, "mlp.experts")
_JAMBA = Packing("feed_forward.experts", _LLAMAS, "feed_forward.experts")
_LFM2 = Packing("feed_forward.experts", _MIXTRALS, "feed_forward.experts")
_ERNIE_VL = Packing(
    "mlp.experts", _LLAMAS, "mlp.experts", ("mlp.text_moe.experts", "mlp.vision_moe.experts")
)
_MISTRAL = Packing("experts", _MIXTRALS, "experts")
_DOTS_VISION = Packing(
    "mlp.experts", {"gate_up_proj": ("fc1", "fc3"), "down_proj": ("fc2",)}, "mlp.experts"
)
_NEMOTRON = Packing(
    "mixer.experts", {"up_proj": ("up_proj",), "down_proj": ("down_proj",)}, "mixer.experts"
)
# `model_type`s of config.json, as transformers' table of conversions groups them.
_LIKE_QWEN = """
afmoe axk1 axk2 bailing_hybrid beam cohere2_moe deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32
dots1 dots3_note dots3_note_text ernie4_5_moe exaone_moe flex_olmo flint glm4_moe glm4_moe_lite
glm4v_moe glm5_next glm5_next_text glm_moe_dsa hunyuan_v1_moe hy_v3 kimi_k25 kolibri1 laguna
longcat_flash mellum mimo_v2_flash olmoe qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next
qwen3_omni_moe qwen3_omni_moe_text qwen3_omni_moe_thinker qwen4_exp_text sarvam_mla sarvam_moe
solar_open unlimited_ocr unlimited_ocr_text
"""
_LIKE_MIXTRAL = "kimi_linear minimax minimax_m2 minimax_m3_vl mixtral phimoe"
PACKINGS: dict[str, Packing] = {
    **dict.fromkeys(_LIKE_QWEN.split(), _QWEN),
    **dict.fromkeys(_LIKE_MIXTRAL.split(), _MIXTRAL),
    "deepseek_v4": _DEEPSEEK,
    "dots3_note_vision_encoder": _DOTS_VISION,
    "ernie4_5_vl_moe": _ERNIE_VL,
    "jamba": _JAMBA,
    "lfm2_moe": _LFM2,
    "mistral_large4_text": _MISTRAL,
    "nemotron_h": _NEMOTRON,
}
# Methods that look at one element at a time: for them packed or not is the same.
_ELEMENTWISE = ("linear", "task_arithmetic", "passthrough", "nearswap")


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in a packed one."""

    packed: str
    expert: int
    part: int


def looks_at_whole_tensors(method: Method) -> bool:
    """Whether a method's result for an element depends on others of its tensor."""
    return method.name not in _ELEMENTWISE


def packings_of(config: Mapping[str, Any]) -> list[Packing]:
    """How transformers packs the experts of a model, if it does: of each part that has some.

    Args:
        config: The contents of `config.json`; the parts of a model are described inside it.
    """
    types = (str(part.get("model_type")) for part in _with_inner(config))
    found = [PACKINGS[model_type] for model_type in types if model_type in PACKINGS]
    return [packing for place, packing in enumerate(found) if packing not in found[:place]]


def packed_outputs(
    tensors: Sequence[OutputTensor],
    checkpoints: Sequence[Checkpoint],
    packing: Packing,
    derived: DerivedModels,
    *,
    keep_parts: bool,
) -> list[OutputTensor]:
    """The output's tensors with those of a layer's experts put together.

    Args:
        derived: Gets the tensors that are put together.
        keep_parts: Whether the output has them under their own names.

    Raises:
        InputError: Those of one layer do not fit each other.
    """
    pattern = _pattern(packing)
    groups: dict[str, dict[tuple[int, int], OutputTensor]] = {}
    rest = []
    for tensor in tensors:
        place = _place(tensor.match.name, packing, pattern)
        if place is None:
            if not keep_parts:
                tensor = _renamed(tensor, packing)
            rest.append(tensor)
        else:
            groups.setdefault(place.packed, {})[place.expert, place.part] = tensor
    for group, members in groups.items():
        for name, found in _kinds(group, members, packing).items():
            ordered = [found[key] for key in sorted(found)]
            _check(name, found, ordered, checkpoints)
            rest.append(_together(name, found, ordered, checkpoints, derived, keep_parts))
    return rest


def _with_inner(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, Mapping) and "model_type" in value:
            yield from _with_inner(value)


def _pattern(packing: Packing) -> re.Pattern[str]:
    matrices = "|".join(part for parts in packing.packed.values() for part in parts)
    stem = re.escape(packing.stem)
    return re.compile(rf"(?P<head>(?:.*\.)?){stem}\.(?P<expert>\d+)\.(?P<part>{matrices})\.weight")


def _place(name: str, packing: Packing, pattern: re.Pattern[str]) -> _Place | None:
    match = pattern.fullmatch(name)
    if match is None:
        return None
    for packed, parts in packing.packed.items():
        if match["part"] in parts:
            whole = f"{match['head']}{packing.new_stem}.{packed}"
            return _Place(whole, int(match["expert"]), parts.index(match["part"]))
    return None


def _kinds(
    name: str, found: dict[tuple[int, int], OutputTensor], packing: Packing
) -> dict[str, dict[tuple[int, int], OutputTensor]]:
    """A layer's experts, by the packed tensors of their kinds; they are numbered in each."""
    if not packing.kinds:
        return {name: found}
    each = -(-len({expert for expert, _ in found}) // len(packing.kinds))
    kinds: dict[str, dict[tuple[int, int], OutputTensor]] = {}
    for (expert, part), tensor in found.items():
        kind = packing.kinds[min(expert // each, len(packing.kinds) - 1)]
        whole = name.replace(packing.new_stem, kind)
        kinds.setdefault(whole, {})[expert - each * packing.kinds.index(kind), part] = tensor
    return kinds


def _renamed(tensor: OutputTensor, packing: Packing) -> OutputTensor:
    """What is no expert's, under the name that transformers gives it: the router."""
    old, new = (stem.removesuffix("experts") for stem in (packing.stem, packing.new_stem))
    name = re.sub(rf"(^|\.){re.escape(old)}", rf"\g<1>{new}", tensor.match.name)
    return tensor if old == new else replace(tensor, match=replace(tensor.match, name=name))


def _check(
    name: str,
    found: Mapping[tuple[int, int], OutputTensor],
    ordered: Sequence[OutputTensor],
    checkpoints: Sequence[Checkpoint],
) -> None:
    """That a packed tensor lacks no part, and that those of one model are alike."""
    experts, parts = (sorted({key[axis] for key in found}) for axis in (0, 1))
    whole = experts == list(range(len(experts))) and len(found) == len(experts) * len(parts)
    if not whole:
        raise InputError(
            f"`{name}`: the files hold {len(found)} matrices of {len(experts)} experts, and the"
            " model needs as many of each",
            "the checkpoint is not whole: fetch or save it again",
        )
    for place, number in enumerate(ordered[0].numbers):
        tensors = [checkpoints[number].tensors[one.match.inputs[place]] for one in ordered]
        first = tensors[0]
        for one, tensor in zip(ordered, tensors, strict=True):
            unlike = None
            if (tensor.dtype, tensor.plain_dtype) != (first.dtype, first.plain_dtype):
                unlike = f"dtype {first.dtype}", tensor.dtype, "save the model in one dtype"
            elif len(tensor.shape) != 2 or tensor.shape != first.shape:
                hint = "its experts are not those of one model of transformers"
                unlike = f"a matrix {list(first.shape)}", str(list(tensor.shape)), hint
            if unlike:
                expected, other, hint = unlike
                raise InputError(
                    f"model `{checkpoints[number].name}`: tensor `{one.match.inputs[place]}`:"
                    f" expected {expected} as of `{ordered[0].match.inputs[place]}`, found {other}:"
                    f" they are merged as one tensor `{name}`",
                    hint,
                )


def _together(
    name: str,
    found: Mapping[tuple[int, int], OutputTensor],
    ordered: Sequence[OutputTensor],
    checkpoints: Sequence[Checkpoint],
    derived: DerivedModels,
    keep_parts: bool,
) -> OutputTensor:
    """One packed tensor in place of its parts."""
    first = ordered[0]
    n_experts = len({expert for expert, _ in found})
    computed = []
    for place, number in enumerate(first.numbers):
        stored = checkpoints[number].tensors[first.match.inputs[place]]
        rows, columns = stored.shape
        shape = (n_experts, len(ordered) * rows // n_experts, columns)
        names = tuple(one.match.inputs[place] for one in ordered)
        reference = derived.add(number, name, Concat(number, names, shape))
        computed.append(Operand(reference, stored.dtype, shape, stored.plain_dtype))
    own = checkpoints[first.numbers[0]].tensors[first.match.inputs[0]].shape
    parts = tuple(Part(one.match.name, own) for one in ordered)
    return replace(
        first,
        match=Match(name, first.match.inputs),
        names=(name,) * len(first.names),
        computed=tuple(computed),
        parts=parts if keep_parts else (),
    )
