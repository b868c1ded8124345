"""Patterns of an adapter's settings match as peft's do, and never without end."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.checkpoints.adapters.patterns import Patterns
from mergeplan.errors import InputError


def of_peft(pattern: str, module: str) -> bool:
    """`get_pattern_key` of peft/utils/other.py."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def found(pattern: str, module: str) -> bool:
    return Patterns({pattern: 1}, "here").value(module, 0) == 1


@given(st.text("ab.x|", max_size=8), st.text("ab.x", max_size=8))
def test_plain_alternations_match_as_in_peft(pattern, module):
    assert found(pattern, module) == of_peft(pattern, module)


@pytest.mark.parametrize(
    "pattern",
    [r"model\.layers\.[0-3]\..*q_proj", r"(q|v)_proj", r"layers\.(1|2)\.\w+\.q_proj", "^q_proj"],
)
def test_expressions_match_as_in_peft(pattern):
    for layer in range(5):
        for name in ("q_proj", "v_proj"):
            module = f"model.layers.{layer}.self_attn.{name}"
            assert found(pattern, module) == of_peft(pattern, module)


def test_the_first_pattern_that_matches_decides():
    patterns = Patterns({"up_proj": 1, ".*_proj": 2, "q_proj": 3}, "here")
    assert [patterns.value(name, 0) for name in ("a.up_proj", "a.q_proj", "a.norm")] == [1, 2, 0]


def test_many_patterns_share_one_limit_of_time():
    patterns = Patterns({f"(?:a|aa|aaa)+[xy]{i}": 1 for i in range(50)}, "here")
    begun = time.process_time()
    with pytest.raises(InputError, match="takes too long"):
        patterns.value("a" * 60, 0)
    assert time.process_time() - begun < 20
