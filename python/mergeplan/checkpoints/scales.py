"""The scales of 8-bit weights: which tensor holds them, and how many elements share one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.errors import InputError

# Behind the weight's name: DeepSeek and Qwen; compressed-tensors, FBGEMM and ModelOpt. Both are
# multiplied with: the first is the inverse of what the weight was multiplied with.
_ENDINGS = ("_scale_inv", "_scale")
# Of blocks, where the settings of `quant_method: fp8` give none, as in transformers.
_BLOCK = (128, 128)
# A block's side may exceed the tensor's; the product of two fits the core's numbers.
_LONGEST_SIDE = 2**31 - 1


def is_scale(ending: str) -> bool:
    """Whether a tensor can only be a weight's scales, by what its name has behind the last point.

    >>> is_scale("weight_scale"), is_scale("layer_scale")
    (True, False)
    """
    return ending.endswith("_scale_inv") or ending == "weight_scale"


def find_scales(stored: Checkpoint, name: str, way_out: str) -> str:
    """The name of an 8-bit tensor's scales.

    Raises:
        InputError: There are none, two, or some of a dtype that is not read.
    """
    found = [whole for ending in _ENDINGS if (whole := name + ending) in stored.tensors]
    if len(found) != 1:
        dtype = stored.tensors[name].dtype
        names = " and ".join(f"`{scales}`" for scales in found) or f"{dtype} without any"
        where = f"`{stored.path / stored.tensors[name].file}`: tensor"
        raise InputError(
            f"{where} `{name}`: expected its scales under `{name + _ENDINGS[0]}` or"
            f" `{name + _ENDINGS[1]}`, found {names}",
            way_out,
        )
    dtype = stored.tensors[found[0]].dtype
    if dtype not in FLOATS:
        where = f"`{stored.path / stored.tensors[name].file}`: tensor"
        raise InputError(
            f"{where} `{found[0]}`: expected scales in F32, BF16 or F16, found {dtype}", way_out
        )
    return found[0]


def block_sides(
    stored: Checkpoint, name: str, scales: str, stated: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """Sides of the block that shares a scale, one for each axis.

    Per tensor it is all of it, per channel a row; along leading axes (packed experts) there is one
    scale for all, or one for each. The last block of an axis may be smaller than the others.

    Args:
        stated: The blocks that the config gives (`blocks_of`).

    Raises:
        InputError: The scales fit none of these, nor the blocks that the config gives.
    """
    sides, grid = stored.tensors[name].shape, stored.tensors[scales].shape
    if not stored.tensors[scales].n_elements:
        raise InputError(
            f"`{stored.path / stored.tensors[scales].file}`: tensor `{scales}`: expected scales for"
            f" `{name}`, of shape {list(sides)}, found none: its own shape is {list(grid)}",
            "fetch the checkpoint again; where the weight has no element on purpose, one scale of 1"
            " stands for all of it",
        )
    if stored.tensors[scales].n_elements == 1:
        return tuple(max(side, 1) for side in sides)
    # One axis alone is that of the channels, or of the experts.
    padded = grid + (1,) * (len(sides) - len(grid))
    leading = _whole_or_each(sides[:-2], padded[:-2])
    if len(padded) == len(sides) and leading is not None:
        last, blocks = sides[-2:], padded[-2:]
        for block in stated:
            if len(last) == 2 and blocks == tuple(
                -(-side // own) for side, own in zip(last, block, strict=True)
            ):
                return (*leading, *block)
        found = _whole_or_each(last, blocks)
        if found is not None:
            return (*leading, *found)
    given = ", ".join(f"{rows} x {columns}" for rows, columns in stated)
    raise InputError(
        f"`{stored.path / stored.tensors[scales].file}`: tensor `{scales}`: expected one scale for"
        f" `{name}`, for each of its rows, or for each block of {given}, as its shape"
        f" {list(sides)} has them, found shape {list(grid)}",
        "`weight_block_size` in config.json's `quantization_config` says how large blocks are",
    )


def _whole_or_each(sides: Sequence[int], blocks: Sequence[int]) -> tuple[int, ...] | None:
    """Sides of the block where an axis has one scale, or one for each of its elements."""
    both = list(zip(sides, blocks, strict=False))
    if any(count not in (1, side) for side, count in both):
        return None
    return tuple(max(side, 1) if count == 1 else 1 for side, count in both)


def blocks_of(settings: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """The blocks that a config gives for its weights."""
    found = [pair for one in settings for pair in _pairs(one)]
    return list(dict.fromkeys(found)) or [_BLOCK]


def _pairs(settings: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """`weight_block_size`; compressed-tensors' `block_structure` and `group_size` of each group."""
    groups = settings.get("config_groups")
    groups = groups.values() if isinstance(groups, Mapping) else ()
    weights = [group.get("weights") for group in groups if isinstance(group, Mapping)]
    own = [one for one in weights if isinstance(one, Mapping)]
    given: list[Any] = [
        settings.get("weight_block_size"),
        *(one.get("block_structure") for one in own),
    ]
    given += [(1, one.get("group_size")) for one in own]
    for pair in given:
        if is_block(pair):
            rows, columns = pair
            yield rows, columns


def is_block(value: Any) -> bool:
    """Whether it is the rows and columns of a block.

    >>> is_block([128, 128]), is_block([0, 128]), is_block("x")
    (True, False, False)
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(type(side) is int and 1 <= side <= _LONGEST_SIDE for side in value)
