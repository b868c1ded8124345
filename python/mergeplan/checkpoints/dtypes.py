"""Dtypes by safetensors' names and by torch's; nothing else pairs them."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Everything plain that a checkpoint holds.
TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
STORED_NAMES = {name: stored for stored, name in TORCH_NAMES.items()}
# What the core merges.
FLOATS = {stored: TORCH_NAMES[stored] for stored in ("F32", "BF16", "F16")}
# What it merges in float64, without thinning; complex numbers are pairs of float32.
WIDE = ("F64", "C64")
# 8 bits that mean something only times a scale.
SCALED = ("F8_E4M3", "F8_E5M2")
# Integers and booleans are buffers: copied where all inputs agree, never averaged.
BUFFERS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}


def bits_of(dtype: str) -> int:
    """Bits of an element, by safetensors' name of the dtype.

    >>> bits_of("BF16"), bits_of("F8_E4M3"), bits_of("BOOL")
    (16, 8, 8)
    """
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8


def promote(stored: set[str]) -> str:
    """Torch name of the dtype that holds all of some floating-point ones, as in torch.

    >>> promote({"BF16"}), promote({"BF16", "F16"}), promote({"F64", "F32"})
    ('bfloat16', 'float32', 'float64')
    """
    if "F64" in stored:
        return "float64"
    return TORCH_NAMES[next(iter(stored))] if len(stored) == 1 else "float32"


def torch_dtype(stored: str) -> "torch.dtype":
    """torch's own, by safetensors' name."""
    import torch

    dtype: torch.dtype = getattr(torch, TORCH_NAMES[stored])
    return dtype


def most_common_dtype(amounts: Iterable[tuple[str, int]]) -> str:
    """Torch name of the floating-point dtype that holds most.

    Args:
        amounts: safetensors' name of a dtype, and how much has it; buffers do not count.
    """
    totals: dict[str, int] = {}
    names = {**FLOATS, "F64": "float64"}  # mergekit's executor writes that too
    for stored, amount in amounts:
        name = names.get(stored)
        if name is not None:
            totals[name] = totals.get(name, 0) + amount
    return max(sorted(totals), key=lambda name: totals[name], default="float32")
