"""Whether what `--json` prints is as its schema in the docs says, no key left out of it."""

import json
from functools import cache
from typing import Any

from tests.support.settings import ROOT

SCHEMAS = ROOT / "docs" / "schemas"


def check_document(text: str) -> dict[str, Any]:
    """What a command printed, which its schema describes to the last key."""
    found = json.loads(text, parse_constant=_refuse)
    assert list(found)[:2] == ["format", "version"], list(found)
    error = next(validator(found["format"].removeprefix("mergeplan.")).iter_errors(found), None)
    assert error is None, f"{error.json_path}: {error.message[:500]}"
    _check_texts(found)
    return found


@cache
def validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    registry = Registry().with_resource("common.json", Resource.from_contents(schema("common")))
    return Draft202012Validator(schema(kind), registry=registry)


@cache
def schema(kind: str) -> dict[str, Any]:
    """A schema; what it says of an object's keys is all there is, where others may read on."""
    return json.loads((SCHEMAS / f"{kind}.json").read_text(), object_hook=_closed)


def _closed(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "additionalProperties": False} if "required" in data else data


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _check_texts(data: Any) -> None:
    """No JSON inside strings."""
    if isinstance(data, dict | list):
        for one in data.values() if isinstance(data, dict) else data:
            _check_texts(one)
    elif isinstance(data, str) and data[:1] in ("{", "["):
        try:
            json.loads(data)
        except ValueError:
            return
        raise AssertionError(f"JSON inside a string: {data[:200]}")
