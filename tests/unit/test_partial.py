"""Merges that were scored on some documents only: their order, their values, and the race."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import t

from mergeplan.calibration.race import race
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge, parse_lines, scores_line
from mergeplan.evaluation.partial import completed, covariance, difference
from mergeplan.evaluation.parts import N_PARTS, parts_of
from mergeplan.evaluation.resampling import Resampling
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.measurements.rows import MACRO
from mergeplan.pool.subsets import SubsetMerge

NAMES = "abcde"
SUBSETS = [s for k in range(6) for s in combinations(NAMES, k)]
SHARES = {"code": 0.5, "math": 0.5}
N_DOCUMENTS = 48  # of each domain


def merge_of(subset) -> SubsetMerge:
    return SubsetMerge(0, 1e6, "average" if subset else "base", "{}", tuple(subset))


def losses_of(seed=0, own=0.02, subsets=SUBSETS) -> np.ndarray:
    """Loss a token of each subset on each document, nearly a form of its weights."""
    rng = np.random.default_rng(seed)
    weights = np.array([[(name in s) / max(len(s), 1) for name in NAMES] for s in subsets])
    n = 2 * N_DOCUMENTS
    # An expert helps in one domain more than in the other, and not in every document alike.
    domain = np.repeat([0, 1], N_DOCUMENTS)
    slopes = rng.normal(0, 0.1, (5, 2))[:, domain] + rng.normal(0, 0.1, (5, n))
    found = 2 + rng.normal(0, 0.5, n) + weights @ slopes + 0.2 * (weights**2).sum(1)[:, None]
    return found + rng.normal(0, own, found.shape)


def measured(subset, losses, parts, upto=N_PARTS, groups=None) -> MeasuredMerge:
    lengths = np.random.default_rng(7).integers(5, 50, len(losses))
    domains = {}
    for number, name in enumerate(SHARES):
        some = np.arange(number * N_DOCUMENTS, (number + 1) * N_DOCUMENTS)
        some = some[parts[some] < upto]
        own = tuple(groups[i] for i in some) if groups is not None else ()
        domains[name] = DomainScores(some, lengths[some], lengths[some] * losses[some], own)
    reached = upto if upto < N_PARTS else None
    return MeasuredMerge(merge_of(subset), Scores(domains), (0.0, 0.0), parts=reached)


def drawn_parts(seed) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hashes = ([f"{n:04}" for n in rng.permutation(N_DOCUMENTS)] for _ in SHARES)
    return np.concatenate([parts_of(range(N_DOCUMENTS), some) for some in hashes])


ANCHORS = [(), *(tuple(s) for s in ("abcde", "abc", "cde"))]


def some_partly(seed, partly, upto, losses):
    parts = drawn_parts(seed)
    places = {s: n for n, s in enumerate(SUBSETS)}
    whole = [measured(s, losses[places[s]], parts) for s in ANCHORS]
    return whole + [measured(s, losses[places[s]], parts, upto) for s in partly]


def test_parts_are_an_eighth_a_quarter_a_half_and_all_and_groups_stay_together():
    hashes = [f"{n:03}" for n in np.random.default_rng(0).permutation(160)]
    parts = parts_of(range(160), hashes)
    assert [int((parts <= n).sum()) for n in range(N_PARTS)] == [20, 40, 80, 160]
    groups = [n // 5 for n in range(160)]
    together = parts_of(groups, hashes)
    assert all(len(set(together[n : n + 5])) == 1 for n in range(0, 160, 5))
    assert [int((together <= n).sum()) / 5 for n in range(N_PARTS)] == [8, 8, 16, 32]
    # Of few documents eight are scored first.
    assert (parts_of(range(10), hashes[:10]) == 0).sum() == 8


@pytest.mark.parametrize("upto", [1, 3])
def test_the_difference_to_whole_merges_is_unbiased_and_as_sure_as_it_says(upto):
    """Over orders of the documents: errors in units of the standard error it tells."""
    losses = losses_of()
    partly = [("a",), ("b", "d"), ("a", "c", "e")]
    truth = {
        one.merge.subset: one.scores.macro().loss_nats
        for one in (measured(s, losses[SUBSETS.index(s)], drawn_parts(0)) for s in partly)
    }
    ratios, spread, alone = [], [], []
    for seed in range(150):
        some = some_partly(seed, partly, upto, losses)
        every = completed(some)
        for one in every[len(ANCHORS) :]:
            own = truth[one.measured.merge.subset]
            error = one.measured.scores.macro().loss_nats - own
            ratios.append(error / np.hypot(*one.errors.values()) * 2)
            spread.append(error)
        alone += [one.scores.macro().loss_nats - truth[one.merge.subset] for one in some[-3:]]
    assert abs(np.mean(ratios)) < 0.2
    assert 0.85 < np.std(ratios) < 1.25
    # Its own mean loss on these documents is off by far more.
    assert np.std(spread) < 0.25 * np.std(alone)
    # What was scored on everything stays as it is.
    assert all(a.measured is b for a, b in zip(every[:4], some[:4], strict=True))


def test_what_merges_have_in_common_is_their_covariance():
    losses = losses_of()
    partly = [("a",), ("a", "b"), ("d", "e")]
    found, told = [], []
    for seed in range(300):
        every = completed(some_partly(seed, partly, 2, losses))[len(ANCHORS) :]
        found.append([one.measured.scores.macro().loss_nats for one in every])
        told.append(covariance(every, SHARES))
    assert np.cov(np.array(found).T) == pytest.approx(np.mean(told, 0), rel=0.35)
    # One that was scored on more has in common with one of fewer what is still open of it.
    every = completed(some_partly(1, partly[:1], 2, losses) + some_partly(1, partly[1:], 3, losses))
    some = [one for one in every if not one.whole]
    mixed = covariance(some, SHARES)
    assert mixed[1, 1] < told[1][1, 1]
    assert (np.linalg.eigvalsh(mixed) > -1e-12).all()


def test_what_was_not_scored_is_filled_in_so_that_the_mean_is_kept():
    losses = losses_of()
    groups = [f"file {n // 3}" for n in range(2 * N_DOCUMENTS)]
    hashes = [f"{n:04}" for n in np.random.default_rng(3).permutation(N_DOCUMENTS)]
    parts = np.concatenate([parts_of(groups[:N_DOCUMENTS], hashes)] * 2)
    some = [measured(s, losses[SUBSETS.index(s)], parts, groups=groups) for s in ANCHORS]
    one = measured(("a",), losses[1], parts, 1, groups)
    *_, found = completed([*some, one])
    for name, domain in found.measured.scores.domains.items():
        own = one.scores.domains[name]
        there = np.isin(domain.lines, own.lines)
        assert len(domain.lines) == N_DOCUMENTS
        assert there.sum() == 24
        np.testing.assert_allclose(domain.nll[there], own.nll)
        part = found.parts[name]
        mean, _, n_groups = part.mean(part.scored, part.residuals)
        assert n_groups == 8
        expected = (part.expected.sum() + mean * part.total) / part.total
        assert domain.estimate().loss_nats == pytest.approx(expected)
    # Documents drawn anew say that two merges differ about as much as where both are whole.
    key = one.merge.merge_key
    resampling = Resampling.of([*some, one])
    partly = resampling.difference(key, some[0].merge.merge_key, {MACRO: 1.0}).se
    whole = Resampling.of([*some, measured(("a",), losses[1], parts, groups=groups)])
    assert 0.5 < partly / whole.difference(key, some[0].merge.merge_key, {MACRO: 1.0}).se < 2


def test_over_all_looks_the_best_is_seldom_thrown_out():
    """Twelve merges that are as good as alike on average: what is out once stays out here."""
    rng = np.random.default_rng(5)
    subsets = [s for s in SUBSETS if len(s) == 3] + [("a",), ("b",)]
    lost = apart = 0
    for seed in range(60):
        losses = 2 + rng.normal(0, 0.3, (1, 2 * N_DOCUMENTS))
        losses = losses + rng.normal(0, 0.05, (len(subsets), 2 * N_DOCUMENTS))
        losses[-1] += 0.2
        parts = drawn_parts(seed)
        base = measured((), losses[0] + 0.1, parts)
        whole = [measured(s, row, parts) for s, row in zip(subsets, losses, strict=True)]
        best = min(whole, key=lambda one: one.scores.macro().loss_nats).merge
        out: set[SubsetMerge] = set()
        for upto in range(1, N_PARTS):
            some = [measured(s, row, parts, upto) for s, row in zip(subsets, losses, strict=True)]
            merges = [one.merge for one in some]
            out |= set(race([base, *some], merges, SHARES, 0.1).worse)
        lost += best in out
        apart += whole[-1].merge in out
    assert lost <= 60 * 0.1 + 2 * np.sqrt(60 * 0.1 * 0.9)
    assert apart >= 55


def test_a_difference_of_whole_merges_is_exact_and_the_race_knows_the_best():
    losses = losses_of()
    parts = drawn_parts(0)
    some = [measured(s, losses[SUBSETS.index(s)], parts) for s in SUBSETS]
    every = completed(some)
    value, se, _ = difference(every[3], every[9], SHARES)
    means = [one.scores.macro().loss_nats for one in some]
    assert value == pytest.approx(means[3] - means[9])
    assert se == 0
    merges = [one.merge for one in some[1:]]
    found = race(some, merges, SHARES, 0.1)
    assert found.best == merges[int(np.argmin(means[1:]))]
    assert len(found.worse) == len(merges) - 1
    assert found.open == ()
    assert race([], merges, SHARES, 0.1).best is None


def test_a_line_says_how_far_a_merge_got_and_of_another_text_it_is_refused(tmp_path):
    losses = losses_of()
    some = some_partly(0, [("a",)], 2, losses)
    content = b"".join(map(scores_line, some))
    found, end = parse_lines(content, tmp_path)
    assert end == len(content)
    assert [one.parts for one in found] == [None] * len(ANCHORS) + [2]
    assert b'"parts": 2' in content.splitlines()[-1]
    assert b"parts" not in content.splitlines()[0]
    other = replace(some[-1].scores.domains["code"], n_tokens=np.ones(12, np.int64))
    domains = {**some[-1].scores.domains, "code": other}
    with pytest.raises(InputError, match="parts of different texts"):
        completed([*some[:-1], replace(some[-1], scores=Scores(domains))])


def small(subset, losses, parts, upto=N_PARTS, method="average", domains=("x",)) -> MeasuredMerge:
    """Documents of one length; the losses of each domain in turn."""
    scores = {}
    for name, own, part in zip(domains, losses, parts, strict=True):
        some = np.flatnonzero(part < upto)
        scores[name] = DomainScores(some, np.full(len(some), 20), 20 * own[some])
    merge = SubsetMerge(0, 1e6, method if subset else "base", "{}", tuple(subset))
    reached = upto if upto < N_PARTS else None
    return MeasuredMerge(merge, Scores(scores), (0.0, 0.0), parts=reached)


def test_a_difference_has_the_freedom_of_the_domains_that_it_varies_in():
    """Welch and Satterthwaite's; and a merge is out just beyond the quantile of Student's t."""
    rng = np.random.default_rng(0)
    shares, scale = {"x": 0.5, "y": 0.5}, np.array([[0.05], [0.01]])
    losses = rng.normal(2, 0.3, (2, 64)) + scale * rng.normal(0, 1, (3, 2, 64))
    parts = [parts_of(range(64), [f"{n:03}" for n in rng.permutation(64)]) for _ in range(2)]

    def some(shift=0.0):
        base = small("", losses[0], parts, domains=shares)
        rivals = (("a", losses[1]), ("b", losses[2] + shift))
        return [base, *(small(s, own, parts, 1, domains=shares) for s, own in rivals)]

    _, one, other = completed(some())
    value, se, freedom = difference(other, one, shares)
    apart = (losses[2] - losses[1])[np.array(parts) < 1].reshape(2, 8)
    own = apart.var(1, ddof=1) / 8
    assert freedom == pytest.approx(own.sum() ** 2 / (own**2 / 7).sum())
    assert se == pytest.approx(np.sqrt(own.sum() * (1 - 8 / 64)) / 2)
    quantile = t.ppf(1 - 0.1 / 3, freedom)
    merges = [each.measured.merge for each in (one, other)]
    for times, out in ((0.98, False), (1.02, True)):
        found = race(some(times * quantile * se - value), merges, shares, 0.1)
        assert bool(found.worse) == out


def test_a_kind_of_document_that_a_part_has_missed_is_seen_in_whole_merges():
    """The best is better on one document in ten alone, and a whole merge has a third of that."""
    lost = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        base = rng.normal(2, 0.3, 30)
        a, b, c, more = base + rng.normal(0, 0.005, (4, 30))
        a += 0.02
        a[:3] -= 0.5
        c += 0.03
        parts = [parts_of(range(30), [f"{n:03}" for n in rng.permutation(30)])]
        whole = [small("", [more + 0.2], parts), small("abc", [(a + b + c) / 3], parts)]
        out: set[SubsetMerge] = set()
        for upto in range(1, N_PARTS):
            some = [small(s, [own], parts, upto) for s, own in zip("abc", (a, b, c), strict=True)]
            out |= set(race([*whole, *some], [one.merge for one in some], {"x": 1.0}, 0.1).worse)
        lost += ("a",) in {merge.subset for merge in out}
    assert lost <= 60 * 0.1


def test_merges_of_another_method_say_nothing_of_what_was_not_scored():
    losses = losses_of()
    some = some_partly(0, [("a",)], 1, losses)
    other = measured(("a",), losses[5] + 1, drawn_parts(0))
    other = replace(other, merge=replace(other.merge, method="ties"))
    values = [every[-1].measured.scores.macro() for every in map(completed, (some, [other, *some]))]
    assert values[0] == values[1]
