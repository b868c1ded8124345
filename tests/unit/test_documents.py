"""What `--json` prints: every command has a format, a version and a schema.

`tests.support.commands.cli` holds all that is printed in any test against its schema.
"""

import json
import math
from pathlib import Path

import click
import pytest

from mergeplan.cli import group
from mergeplan.cli.documents import VERSIONS, print_document
from tests.support.documents import SCHEMAS, check_document, schema, validator

# What a command prints in the place of the document of its own name.
OTHERS = {
    "calibrate": {"forecast"},
    "merge": {"merges", "plan"},
    "status": {"tune_status"},
    "tune": {"tune_forecast"},
    "verify": {"replay"},
}


def commands_with_json() -> set[str]:
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {
        name
        for name, command in commands.items()
        if any("--json" in option.opts for option in command.params)
    }


def test_every_command_has_a_schema_of_the_version_that_it_prints():
    named = commands_with_json()
    assert {"suggest", "select", "calibrate", "merge"} <= named
    kinds = {name.replace("-", "_") for name in named - {"average"}}  # which prints merge's
    kinds = kinds.union(*(OTHERS.get(name, set()) for name in named))
    assert kinds == VERSIONS.keys()
    assert {path.stem for path in SCHEMAS.glob("*.json")} == kinds | {"common"}
    docs = (SCHEMAS.parent / "json.md").read_text()
    for kind in kinds:
        validator(kind).check_schema(schema(kind))
        head = {name: schema(kind)["properties"][name]["const"] for name in ("format", "version")}
        assert head == {"format": f"mergeplan.{kind}", "version": VERSIONS[kind]}
        assert list(schema(kind)["properties"])[:2] == list(head)
        assert f"`mergeplan.{kind}` {VERSIONS[kind]} |" in docs


def test_what_json_lacks_is_null_and_what_is_data_is_no_text(capsys):
    data = {
        "options": '{"lambda": 0.4}',
        "low": -math.inf,
        "deep": [{"se": math.nan}],
        3: Path("a"),
    }
    print_document("bench", data)
    found = json.loads(capsys.readouterr().out)
    expected = {"options": {"lambda": 0.4}, "low": None, "deep": [{"se": None}], "3": "a"}
    assert found == {"format": "mergeplan.bench", "version": 1, **expected}
    with pytest.raises(KeyError):
        print_document("nothing", {})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"unknown": 1}, "unknown"),
        ({"kept": "1"}, r"\$.kept"),
        ({"version": 2}, r"\$.version"),
        ({"warnings": ['{"lambda": 1}']}, "JSON inside a string"),
        ({"merges": math.nan}, "NaN"),
    ],
)
def test_the_check_finds_what_a_schema_does_not_say(change, fault):
    document = {"format": "mergeplan.sample", "version": 1, "merges": 1, "kept": 0, "table": None}
    document |= {"counts": [], "warnings": []}
    check_document(json.dumps(document))
    with pytest.raises(AssertionError, match=fault):
        check_document(json.dumps(document | change))
