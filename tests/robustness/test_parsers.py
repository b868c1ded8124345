"""A share of the fuzz of every parser; `python -m tests.tools.attacks.parsers` is the long run."""

import pytest

from tests.tools.attacks.parsers import fuzz


@pytest.mark.parametrize("seed", [0])
def test_parsers_raise_our_own_errors_and_nothing_else(seed, tmp_path, monkeypatch, full):
    monkeypatch.chdir(tmp_path)
    findings = fuzz(tmp_path, range(50_000 if full else 2_000), seed)
    assert findings.found == {}
    # Every target was met, and neither refuses nor takes everything that it is given.
    read = {name for name, outcome in findings.outcomes if outcome == "read"}
    refused = {name for name, outcome in findings.outcomes if outcome != "read"}
    assert len(read) > 25
    assert len(refused) > 25
