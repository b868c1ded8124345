"""docs/evidence/asks.md names every ask, and tests that exist."""

import re

from tests.support.settings import ROOT

ASKS = (ROOT / "docs" / "evidence" / "asks.md").read_text("utf-8")


def test_every_ask_has_an_answer_and_a_test_that_exists():
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", ASKS, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 37))
    for number, row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert tests, f"ask {number} names no test"
        for path, name in tests:
            source = (ROOT / path).read_text("utf-8")
            assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{path}::{name}"
