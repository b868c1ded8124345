"""Checkpoints in 8 bits with scales, by the published recipes, and what they mean."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import save_checkpoint

MOST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}


def quantised(
    tensor: torch.Tensor, block: tuple[int, ...], dtype: torch.dtype = torch.float8_e4m3fn
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and the scale of each block: DeepSeek-V3's `weight_quant`, for blocks of any sides."""
    grid = [-(-side // own) for side, own in zip(tensor.shape, block, strict=True)]
    scales = torch.empty(grid)
    values = torch.empty(tensor.shape)
    for place in torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, len(grid)).tolist():
        some = tuple(slice(i * own, (i + 1) * own) for i, own in zip(place, block, strict=True))
        scale = tensor[some].float().abs().max() / MOST[dtype]
        scales[tuple(place)] = scale
        values[some] = tensor[some].float() / scale
    return values.to(dtype), scales


def dequantised(
    q: torch.Tensor, scales: torch.Tensor, block: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """float32(q) · float32(scale), rounded: DeepSeek-V3's `weight_dequant`."""
    for axis, own in enumerate(block):
        scales = scales.repeat_interleave(own, dim=axis).narrow(axis, 0, q.shape[axis])
    return (q.float() * scales.float()).to(dtype)


def save_fp8(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    blocks: dict[str, tuple[int, ...]],
    *,
    ending: str = "_scale_inv",
    settings: dict[str, Any] | None = None,
    twin: Path,
    config: dict[str, Any] | None = None,
    more: dict[str, torch.Tensor] | None = None,
) -> Path:
    """A checkpoint whose tensors in `blocks` are 8 bits, and its twin in bfloat16.

    Args:
        blocks: Sides of what shares a scale.
        ending: What is put behind a tensor's name for that of its scales.
        more: Tensors of the first alone.
    """
    stored, plain = dict(tensors), dict(tensors)
    for name, block in blocks.items():
        stored[name], scales = quantised(tensors[name], block)
        plain[name] = dequantised(stored[name], scales, block, torch.bfloat16)
        stored[name + ending] = scales
    settings = settings or {"quant_method": "fp8", "weight_block_size": [128, 128]}
    config = {"torch_dtype": "bfloat16", **(config or {})}
    save_checkpoint(folder, {**stored, **(more or {})}, {**config, "quantization_config": settings})
    save_checkpoint(twin, plain, config)
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())
