"""What is read of one checkpoint: its headers, and the content hashes of its tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import final

# Dtype as safetensors spells it, shape, file name and bytes.
_Kind = tuple[str, tuple[int, ...], str, int]

@final
class Headers:
    """What was read of one checkpoint, for plans over it: the core does not read it again."""

def read_checkpoint(
    path: Path | str,
) -> tuple[list[str], list[int], list[_Kind], list[str], Headers]:
    """Read the headers of a checkpoint's folder, of an index with its shards, or of one safetensors
    file.

    Returns:
        The tensors' names in order; the place of each one's kind; the kinds, of which a model with
        a hundred thousand tensors has a few for each file: dtype as safetensors spells it, shape,
        file name and bytes; the names that the index does not list; and all of it for the core.

    Raises:
        MissingInputError: No such folder, shard or checkpoint.
        InputError: A header or index that is damaged, truncated or contradicts itself.
    """

def content_hashes(
    path: Path | str,
    *,
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> dict[str, str]:
    """Hash every tensor of a checkpoint's folder, or of one safetensors file.

    Args:
        threads: Worker threads, at least 1; they change nothing of the result.
        progress: Called about ten times a second with the bytes hashed so far.

    Returns:
        `content_hash` of each tensor as 16 hexadecimal digits, as manifests hold it.

    Raises:
        MissingInputError, InputError: As for `read_checkpoint`.
        SurroundingsError: Reading failed.
        KeyboardInterrupt: Or whatever a signal handler or `progress` raised.
    """

def content_hash(data: bytes, element_bytes: int) -> int:
    """The hash of all of a tensor's stored bytes that manifests hold."""
