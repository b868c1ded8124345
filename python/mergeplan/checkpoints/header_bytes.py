"""The header of a safetensors file as it stands there."""

import hashlib
from pathlib import Path

from mergeplan.errors import InputError
from mergeplan.system.reading import HEADER, open_plain


def header_sha256(path: Path) -> str:
    """SHA-256 of a safetensors file's length prefix and header; the file is known to be valid."""
    return hashlib.sha256(read_header(path)).hexdigest()


def read_header(path: Path) -> bytes:
    """A safetensors file's length prefix and header.

    Raises:
        InputError: It is none, or was changed since the core read it.
    """
    with open_plain(path) as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        header = file.read(length) if length <= HEADER.most_bytes else b""
    if len(prefix) < 8 or len(header) < length:
        raise InputError(f"`{path}`: expected a header, found {length} bytes that are none")
    return prefix + header
