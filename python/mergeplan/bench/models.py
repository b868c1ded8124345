"""Synthetic models of a real shape, made quickly, with numpy alone.

One block of normal numbers serves every tensor, from another offset and at another scale for each
piece of it: the time goes into rounding and writing. Experts are the base plus normal deltas whose
scale differs from tensor to tensor, as fine-tuning leaves them.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from mergeplan.errors import SurroundingsError
from mergeplan.system.files import make_folder
from mergeplan.system.writing import write_durably, writing

if TYPE_CHECKING:
    import numpy as np

_PIECE = 1 << 18  # elements; what is computed at a time stays in the cache
_BLOCK = 1 << 22  # elements of random numbers
_BASE_SCALE = 0.02
_DELTA_SCALE = 1e-3
# Version of the recipe: models of another one are made anew.
RECIPE = 1


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model's sizes."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    key_value: int
    heads: int

    def tensors(self) -> dict[str, list[int]]:
        """Name and shape of every tensor; the head is tied."""
        hidden, intermediate, key_value = self.hidden, self.intermediate, self.key_value
        found = {
            "model.embed_tokens.weight": [self.vocabulary, hidden],
            "model.norm.weight": [hidden],
        }
        layer = {
            "input_layernorm.weight": [hidden],
            "post_attention_layernorm.weight": [hidden],
            "mlp.gate_proj.weight": [intermediate, hidden],
            "mlp.up_proj.weight": [intermediate, hidden],
            "mlp.down_proj.weight": [hidden, intermediate],
            "self_attn.q_proj.weight": [hidden, hidden],
            "self_attn.q_proj.bias": [hidden],
            "self_attn.k_proj.weight": [key_value, hidden],
            "self_attn.k_proj.bias": [key_value],
            "self_attn.v_proj.weight": [key_value, hidden],
            "self_attn.v_proj.bias": [key_value],
            "self_attn.o_proj.weight": [hidden, hidden],
        }
        for number in range(self.layers):
            found |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
        return found

    def config(self) -> dict[str, Any]:
        """`config.json`."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": max(1, self.key_value * self.heads // self.hidden),
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        }

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        return sum(_length(shape) for shape in self.tensors().values())

    @property
    def n_bytes(self) -> int:
        """Bytes of one model, about."""
        return 2 * self.n_params + 100_000


SHAPES = {
    "0.5b": Shape(896, 4864, 24, 151_936, 128, 14),  # Qwen2.5-0.5B
    "1.5b": Shape(1536, 8960, 28, 151_936, 256, 12),  # Qwen2.5-1.5B
    "7b": Shape(3584, 18_944, 28, 152_064, 512, 28),  # Qwen2.5-7B, with its head tied
    "tiny": Shape(64, 128, 2, 1000, 32, 4),
}


def make_pool(root: Path, shape: Shape, experts: int) -> Iterator[str]:
    """Make `base`, `e0`, `e1`, … in `root` where they are not there yet.

    Yields:
        The name of each model, before it is made.

    Raises:
        SurroundingsError: A folder of that name holds something else.
    """
    for seed, name in enumerate(["base", *(f"e{i}" for i in range(experts))]):
        folder, marker = root / name, root / name / "bench.json"
        wanted = json.dumps({"recipe": RECIPE, "seed": seed, **shape.config()}, indent=1)
        found = _recipe_in(marker)
        if found == wanted:
            continue
        empty = folder.is_dir() and not any(folder.iterdir())
        if os.path.lexists(folder) and not (found or empty):
            raise SurroundingsError(
                f"`{folder}` exists and is no model that `bench` made",
                "give `--dir` a folder of its own",
            )
        yield name
        make_folder(folder)
        # Ours from here on; whole only when it says what it is.
        write_durably(marker, json.dumps({"recipe": "unfinished"}), replace=bool(found))
        _make_model(folder, shape, seed)
        write_durably(marker, wanted, replace=True)


def make_headers(root: Path, shape: Shape, experts: int) -> None:
    """Make models that take no room on the disk and hold nothing but zeros: enough to plan with."""
    for name in ["base", *(f"e{i}" for i in range(experts))]:
        folder = root / name
        make_folder(folder)
        with writing(folder / WEIGHTS_FILE, replace=False) as file:
            header = _header(shape.tensors())
            file.write(header)
            file.truncate(len(header) + 2 * shape.n_params)
        write_durably(folder / CONFIG_FILE, json.dumps(shape.config(), indent=1), replace=False)


def _recipe_in(marker: Path) -> str:
    """What `bench` wrote into a model's folder; nothing where it did not."""
    try:
        found = marker.read_text("utf-8")
        ours = "recipe" in json.loads(found)
    except (OSError, ValueError, TypeError):
        return ""
    return found if ours else ""


def _make_model(folder: Path, shape: Shape, seed: int) -> None:
    """Write the base (seed 0) or an expert."""
    import numpy as np

    block = np.random.default_rng(0).standard_normal(_BLOCK, dtype=np.float32)
    tensors = shape.tensors()
    with writing(folder / WEIGHTS_FILE, replace=True) as file:
        file.write(_header(tensors))
        for name, sides in tensors.items():
            length = _length(sides)
            for start in range(0, length, _PIECE):
                values = _normal(block, name, 0, start, min(_PIECE, length - start), _BASE_SCALE)
                bits = round_bf16(values)
                if seed:
                    values = (bits.astype(np.uint32) << 16).view(np.float32)
                    values += _normal(block, name, seed, start, len(values), _DELTA_SCALE)
                    bits = round_bf16(values)
                file.write(bits.astype("<u2", copy=False).tobytes())
    write_durably(folder / CONFIG_FILE, json.dumps(shape.config(), indent=1), replace=True)


def _normal(
    block: "np.ndarray", name: str, seed: int, start: int, length: int, scale: float
) -> "np.ndarray":
    """A piece of a model's own normal numbers; the scale belongs to the tensor."""
    import numpy as np

    key = zlib.crc32(name.encode())
    own = np.random.default_rng([seed, key]).uniform(0.5, 2.0)
    offset = int(np.random.default_rng([seed, key, start]).integers(0, _BLOCK - _PIECE))
    return block[offset : offset + length] * np.float32(scale * own)


def round_bf16(values: "np.ndarray") -> "np.ndarray":
    """The bits of float32 values rounded to bfloat16, to nearest, ties to even.

    Args:
        values: Finite float32.

    Returns:
        uint16 of the same length.
    """
    import numpy as np

    bits = values.view(np.uint32)
    return ((bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _header(tensors: dict[str, list[int]]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + 2 * _length(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def _length(shape: list[int]) -> int:
    length = 1
    for side in shape:
        length *= side
    return length
