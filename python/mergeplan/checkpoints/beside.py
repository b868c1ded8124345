"""Small files beside the weights. A pool's merges are planned one after the other, so what a file
says is found once, as long as its length and time of change stay."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any


def sha256_beside(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return _sha256(*_version(path))


def json_beside(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no such file, or nothing that can be read.

    Nobody may change what it returns.
    """
    found = _json(*_version(path)) if path.is_file() else None
    return found if isinstance(found, dict) else {}


def entries_beside(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list, in the same way."""
    found = _json(*_version(path)) if path.is_file() else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def text_beside(path: Path) -> str | None:
    """A text, or `None`."""
    return _text(*_version(path)) if path.is_file() else None


def _version(path: Path) -> tuple[Path, int, int]:
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4096)
def _sha256(path: Path, *_: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=4096)
def _text(path: Path, *_: int) -> str:
    return path.read_text("utf-8", errors="replace")


@lru_cache(maxsize=4096)
def _json(path: Path, *_: int) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
