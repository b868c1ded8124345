"""Small files beside the weights. A pool's merges are planned one after the other, so what a file
says is found once, as long as its length, its times of change and its place on the disk stay."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from mergeplan.system.files import sha256_of
from mergeplan.system.jsontext import loads
from mergeplan.system.reading import SETTINGS, read_bytes


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


def _version(path: Path) -> tuple[Path, int, int, int, int, int]:
    stat = path.stat()
    times = stat.st_mtime_ns, stat.st_ctime_ns
    return path, stat.st_size, *times, stat.st_ino, stat.st_dev


@lru_cache(maxsize=4096)
def _sha256(path: Path, *_: int) -> str:
    return sha256_of(path)


@lru_cache(maxsize=4096)
def _text(path: Path, *_: int) -> str:
    return read_bytes(path, SETTINGS).decode("utf-8", errors="replace")


@lru_cache(maxsize=4096)
def _json(path: Path, *_: int) -> Any:
    raw = read_bytes(path, SETTINGS)
    try:
        return loads(raw)
    except ValueError:
        return None
