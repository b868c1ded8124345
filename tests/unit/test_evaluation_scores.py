"""Means, clustered standard errors and paired differences."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from mergeplan.errors import InputError
from mergeplan.evaluation.scores import DocumentLosses, DomainScores, Scores, difference
from mergeplan.system.strict import parse_strictly


def domain(n_tokens, nll) -> DomainScores:
    lines = np.arange(1, len(nll) + 1)
    return DomainScores(lines, np.array(n_tokens, np.int64), np.array(nll, np.float64))


def drawn(rng, documents: int) -> DomainScores:
    """Documents of many lengths, with a loss of their own each: tokens are far from independent."""
    n_tokens = rng.integers(5, 100, documents)
    own = rng.normal(2.0, 0.5, documents)
    return domain(n_tokens, own * n_tokens + rng.normal(0, 1, documents) * np.sqrt(n_tokens))


def test_a_domain_by_hand():
    estimate = domain([1, 3], [1.0, 5.0]).estimate()
    assert (estimate.loss_nats, estimate.n_tokens, estimate.n_documents) == (1.5, 4, 2)
    # Residuals -0.5 and 0.5: sqrt(2 / 1 * 0.5) / 4.
    assert estimate.se == pytest.approx(0.25)


def test_one_document_has_no_standard_error():
    assert math.isnan(domain([4], [8.0]).estimate().se)
    scores = Scores({"a": domain([4], [8.0]), "b": domain([1, 1], [1.0, 2.0])})
    assert scores.macro().loss_nats == 1.75
    assert math.isnan(scores.macro().se)


def test_both_means():
    scores = Scores({"a": domain([1, 1], [1.0, 3.0]), "b": domain([3, 3], [3.0, 3.0])})
    assert scores.macro().loss_nats == pytest.approx(1.5)
    assert scores.token_weighted().loss_nats == pytest.approx(10 / 8)
    a = scores.estimates()["a"].se
    assert scores.macro().se == pytest.approx(a / 2)
    assert scores.token_weighted().se == pytest.approx(a * 2 / 8)


def test_standard_errors_are_the_spread_over_fresh_documents():
    rng = np.random.default_rng(0)
    drawn_scores = [Scores({"a": drawn(rng, 40), "b": drawn(rng, 60)}) for _ in range(2000)]
    for mean in (Scores.macro, Scores.token_weighted, lambda s: s.estimates()["a"]):
        estimates = [mean(scores) for scores in drawn_scores]
        spread = np.std([estimate.loss_nats for estimate in estimates])
        told = math.sqrt(np.mean([estimate.se**2 for estimate in estimates]))
        assert told == pytest.approx(spread, rel=0.08)


def test_pairing_removes_what_the_documents_share():
    rng = np.random.default_rng(0)
    first = drawn(rng, 50)
    noise = rng.normal(0.1, 0.01, 50) * first.n_tokens
    second = DomainScores(first.lines, first.n_tokens, first.nll - noise)
    a, b = Scores({"x": first}), Scores({"x": second})
    paired = difference(a, b).macro()
    assert paired.loss_nats == pytest.approx(a.macro().loss_nats - b.macro().loss_nats)
    assert paired.se < a.macro().se / 10
    assert abs(paired.loss_nats - 0.1) < 4 * paired.se


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Scores({"b": domain([1, 2], [1, 2])}), "domains a and b"),
        (Scores({"a": domain([1, 3], [1, 2])}), "domain `a` differs in its n_tokens"),
        (Scores({"a": domain([1], [1])}), "domain `a` differs in its lines"),
    ],
)
def test_scores_of_different_texts_are_not_compared(other, words):
    with pytest.raises(InputError, match=words):
        difference(Scores({"a": domain([1, 2], [1, 2])}), other)


def test_scores_survive_json():
    scores = Scores({"a": domain([1, 2, 3], [0.1, math.nan, 1e-17]), "b": domain([7], [1 / 3])})
    text = json.dumps({n: asdict(d) for n, d in scores.to_data().items()}, allow_nan=False)
    again = Scores.from_data(
        {
            name: parse_strictly(json.dumps(d), DocumentLosses, name)
            for name, d in json.loads(text).items()
        }
    )
    for name, first in scores.domains.items():
        second = again.domains[name]
        assert np.array_equal(first.nll, second.nll, equal_nan=True)
        assert np.array_equal(first.n_tokens, second.n_tokens)
        assert np.array_equal(first.lines, second.lines)
        assert second.n_tokens.dtype == np.int64
    assert again.faults() == scores.faults()
