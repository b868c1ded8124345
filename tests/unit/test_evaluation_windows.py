"""Windows score each token once, with the context that was asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.evaluation.encoding import Sequence
from mergeplan.evaluation.texts import _cut
from mergeplan.evaluation.windows import windows


@st.composite
def cases(draw):
    max_length = draw(st.integers(2, 40))
    return draw(st.integers(0, 200)), max_length, draw(st.integers(1, max_length - 1))


@given(cases())
def test_each_token_but_the_first_is_scored_exactly_once(case):
    n_tokens, max_length, stride = case
    scored = []
    for start, first, end in windows(n_tokens, max_length, stride):
        assert 0 <= start < first < end <= n_tokens
        assert end - start <= max_length
        assert first - start == (1 if start == 0 and first == 1 else stride)
        scored += range(first, end)
    assert scored == list(range(1, n_tokens))


@given(cases(), st.randoms(use_true_random=False))
def test_cutting_keeps_every_scored_token_and_its_context(case, random):
    n_tokens, max_length, stride = case
    marks = np.array([i > 0 and random.random() < 0.3 for i in range(n_tokens)], bool)
    ids = np.arange(n_tokens, dtype=np.int32)  # a token's id says where it stands
    met = []
    for window, scored in _cut(Sequence(ids, marks), max_length, stride):
        assert len(window) <= max_length
        assert window.tolist() == list(range(window[0], window[-1] + 1))
        assert scored[0] >= 1
        assert scored[-1] == len(window) - 1  # nothing is computed for nothing
        assert window[0] == 0 or scored[0] >= stride
        met += window[scored].tolist()
    assert met == np.flatnonzero(marks).tolist()
