"""An adapter's weights, written as they are made: the header is filled in at the end."""

import json
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.checkpoints.dtypes import STORED_NAMES
from mergeplan.errors import InputError

# Of an entry beside its name: dtype, shape and offsets, with room to spare.
_ENTRY_BYTES = 160


def rounded(matrix: NDArray[np.float32], dtype: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """A matrix as a dtype stores it, and these values in float32.

    Args:
        dtype: Torch's name: float32, bfloat16 or float16.

    Raises:
        InputError: A value is too large for it.
    """
    if dtype == "float32":
        return matrix, matrix
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = matrix.astype(np.float16)
        if not np.isfinite(half).all():
            raise InputError("a factor is too large for float16", "take `--dtype float32`")
        return half, half.astype(np.float32)
    bits = matrix.view(np.uint32)
    # To the nearest, ties to even; numpy has no bfloat16.
    upper = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return upper.astype(np.uint16), (upper << np.uint32(16)).view(np.float32)


class AdapterFile:
    """Writes tensors of a safetensors file one behind the other.

    Args:
        file: Empty, and seekable.
        names: Of all tensors that may come.
    """

    def __init__(self, file: IO[bytes], names: Sequence[str]) -> None:
        self._file = file
        room = sum(len(json.dumps(name)) + _ENTRY_BYTES for name in names) + _ENTRY_BYTES
        self._room = -(-room // 8) * 8
        self._entries: dict[str, Any] = {}
        self._end = 0
        file.write(bytes(8 + self._room))

    def add(self, name: str, raw: NDArray[Any], dtype: str, shape: Sequence[int]) -> None:
        """Append a tensor.

        Args:
            dtype: safetensors' name.
        """
        begin, self._end = self._end, self._end + raw.nbytes
        self._file.write(raw.reshape(-1).view(np.uint8).data)
        self._entries[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [begin, self._end],
        }

    def finish(self) -> int:
        """Fill the header in; returns the bytes of the file."""
        header = json.dumps({"__metadata__": {"format": "pt"}} | self._entries).encode()
        assert len(header) <= self._room
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + header.ljust(self._room))
        return 8 + self._room + self._end


def stored_name(dtype: str) -> str:
    """safetensors' name of a dtype of torch."""
    return STORED_NAMES[dtype]
