"""What `--json` prints: one object that says its format and version, and then its answer."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import click

# A key that is removed, renamed or means something else makes a new version; one that is added does
# not. docs/schemas has a schema of each.
VERSIONS = {
    "bench": 1,
    "calibrate": 1,
    "check": 1,
    "compare": 1,
    "diff": 1,
    "doctor": 1,
    "evaluate": 1,
    "extract_lora": 1,
    "fit": 1,
    "forecast": 1,
    "init": 1,
    "inspect": 1,
    "merge": 1,
    "merges": 1,
    "plan": 1,
    "replay": 1,
    "sample": 1,
    "select": 1,
    "similarity": 1,
    "status": 1,
    "suggest": 1,
    "tune": 1,
    "tune_forecast": 1,
    "tune_status": 1,
    "verify": 1,
}


def print_document(kind: str, data: Mapping[str, Any]) -> None:
    """Print it on stdout.

    Args:
        kind: Which of `VERSIONS`; its format is `mergeplan.KIND`.
        data: The answer first.
    """
    click.echo(json.dumps(head(kind) | _plain(data), allow_nan=False))


def head(kind: str) -> dict[str, Any]:
    """The keys that every document begins with."""
    return {"format": f"mergeplan.{kind}", "version": VERSIONS[kind]}


def _plain(data: Any) -> Any:
    """Data as JSON has it: what is not finite is null, paths are text, and options, which are
    canonical text to us, are an object; in sentences they are words."""
    if isinstance(data, Mapping):
        return {
            str(key): json.loads(value)
            if key == "options" and isinstance(value, str)
            else _plain(value)
            for key, value in data.items()
        }
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_plain(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return _plain(dataclasses.asdict(data))
    if isinstance(data, str):
        from mergeplan.config.labels import worded

        return worded(data)
    return str(data) if isinstance(data, PurePath) else data
