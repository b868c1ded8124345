"""What a run measures, by content: pool, texts, arithmetic. A change of any of it is noticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import header_sha256
from mergeplan.checkpoints.opening import open_checkpoint
from mergeplan.errors import InputError
from mergeplan.pool.pool import Pool

_CONFIG = "config.json"


def models_of(pool: Pool) -> dict[str, Any]:
    """Each model's files: name, bytes, time of change in ns, and the hash of what says how to read
    it. Weights are not hashed: that would read every expert once more.

    Raises:
        InputError: A model's headers are at fault.
    """
    found: dict[str, Any] = {}
    for number, size in enumerate(pool.sizes):
        models = {"base": size.base} | {f"expert `{n}`": p for n, p in size.experts.items()}
        for name, folder in models.items():
            where = f"{name} of size {number + 1}" if len(pool.sizes) > 1 else name
            found[where] = _files_of(folder)
    return found


def _files_of(folder: Path) -> list[list[Any]]:
    files = [Path(file) for file in open_checkpoint(str(folder)).files]
    rows: list[list[Any]] = []
    for file in sorted(files):
        stat = file.stat()
        rows.append([file.name, stat.st_size, stat.st_mtime_ns, header_sha256(file)])
    config = folder / _CONFIG
    if config.is_file():
        rows.append([_CONFIG, hashlib.sha256(config.read_bytes()).hexdigest()])
    return rows


def short_hash(data: Any) -> str:
    """Sixteen digits of the SHA-256 of some data as JSON."""
    text = json.dumps(data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def refuse_changes(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose pool, texts or arithmetic changed.

    Args:
        before, now: Sections, each a mapping from what it is about to its identity.

    Raises:
        InputError: Something differs; the message names it.
    """
    for section, found in now.items():
        recorded = before.get(section, {})
        for name in sorted(set(found) | set(recorded)):
            if found.get(name) == recorded.get(name):
                continue
            what = "is new in" if name not in recorded else "has changed since"
            what = "is no longer in" if name not in found else what
            raise InputError(
                f"{name} {what} the run in `{folder}`: what was measured there cannot be mixed with"
                " new measurements",
                "put it back, or begin a new run in another folder",
            )
