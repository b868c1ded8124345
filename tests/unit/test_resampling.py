"""Documents drawn anew, against a plain loop; and which scores belong to a table."""

import json
import math
import random

import numpy as np
import pytest

from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge, read_scores, scores_line
from mergeplan.evaluation.resampling import Resampling, resampling_beside
from mergeplan.evaluation.scores import DomainScores, Scores, difference
from mergeplan.measurements.rows import MACRO, Measurement
from mergeplan.pool.subsets import SubsetMerge

N = 80592.0
BASE = SubsetMerge(0, N, "base")
A, B, C = (SubsetMerge(0, N, "average", "{}", (name,)) for name in "abc")
BOTH = {"code": 1.0, "math": 3.0}


def measured(merge, rng, groups=(), *, documents=40, shift=0.0) -> MeasuredMerge:
    """Documents of many lengths; those of one group are alike."""
    domains = {}
    for number, name in enumerate(("code", "math")):
        lengths = np.random.default_rng(number).integers(5, 50, documents)
        alike = {group: rng.normal(2, 0.5) for group in groups}
        own = [alike.get(g, 0.0) + rng.normal(2, 0.1) + shift for g in groups or range(documents)]
        lines = np.arange(1, documents + 1)
        domains[name] = DomainScores(lines, lengths, lengths * np.array(own), tuple(groups))
    return MeasuredMerge(merge, Scores(domains), (1.0, 2.0))


def loop_bootstrap(merges, shares, draws, seed):
    """Losses on texts drawn anew, by a plain loop over groups: (draws, merges)."""
    rng = random.Random(seed)
    found = []
    for _ in range(draws):
        losses = np.zeros(len(merges))
        for name, share in shares.items():
            keys = merges[0].scores.domains[name].group_keys()
            groups = sorted(set(keys), key=str)
            chosen = [rng.choice(groups) for _ in groups]
            for number, one in enumerate(merges):
                domain = one.scores.domains[name]
                nll = n_tokens = 0.0
                for group in chosen:
                    for place, key in enumerate(keys):
                        if key == group:
                            nll += domain.nll[place]
                            n_tokens += domain.n_tokens[place]
                losses[number] += share / sum(shares.values()) * nll / n_tokens
        found.append(losses)
    return np.array(found)


@pytest.mark.parametrize("groups", [(), tuple(f"file {n // 4}" for n in range(40))])
def test_deviations_are_those_of_a_plain_loop(groups):
    rng = np.random.default_rng(1)
    merges = [measured(one, rng, groups) for one in (A, B)]
    found = Resampling.of(merges).deviations([A.merge_key, B.merge_key], BOTH, draws=4000)
    n = 10 if groups else 40
    # The loop knows nothing of the correction for few groups.
    loop = loop_bootstrap(merges, BOTH, 400, 0) * math.sqrt(n / (n - 1))
    assert np.allclose(np.std(found, 0), np.std(loop, 0), rtol=0.1)
    assert np.std(found[:, 0] - found[:, 1]) == pytest.approx(np.std(loop @ [1, -1]), rel=0.1)


def test_the_draws_agree_with_the_standard_error_where_lengths_are_equal():
    one = DomainScores(np.arange(6), np.full(6, 7), np.arange(6.0))
    found = Resampling.of([MeasuredMerge(A, Scores({"x": one}), (0, 0))])
    deviations = found.deviations([A.merge_key], {"x": 1}, draws=200_000)
    assert np.std(deviations) == pytest.approx(one.estimate().se, rel=0.01)
    assert np.mean(deviations) == pytest.approx(0, abs=0.001)


def test_documents_of_one_group_do_not_count_as_many():
    groups = tuple(f"file {n // 10}" for n in range(40))
    together = measured(A, np.random.default_rng(2), groups).scores
    apart = measured(A, np.random.default_rng(2), groups).scores
    for domain in apart.domains.values():
        object.__setattr__(domain, "groups", ())
    assert together.macro().loss_nats == pytest.approx(apart.macro().loss_nats)
    assert together.macro().se > 1.5 * apart.macro().se


def test_merges_are_paired_whatever_else_is_asked_for():
    rng = np.random.default_rng(3)
    first = measured(A, rng)
    second = MeasuredMerge(
        B,
        Scores(
            {
                name: DomainScores(d.lines, d.n_tokens, d.nll + 0.1 * d.n_tokens)
                for name, d in first.scores.domains.items()
            }
        ),
        (0, 0),
    )
    some = Resampling.of([first, second, measured(C, rng)])
    keys = [one.merge_key for one in (A, B, C)]
    every = some.deviations(keys, {MACRO: 1}, draws=50, seed=4)
    assert np.allclose(every[:, 0], every[:, 1])
    assert np.allclose(some.deviations(keys[1:2], {MACRO: 1}, draws=50, seed=4), every[:, 1:2])
    assert not np.allclose(some.deviations(keys, {MACRO: 1}, draws=50, seed=5), every)
    assert some.difference(keys[1], keys[0], {MACRO: 1}).loss_nats == pytest.approx(0.1)
    assert some.difference(keys[1], keys[0], {MACRO: 1}).se == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("groups", [(), tuple(str(n % 8) for n in range(40))])
def test_a_difference_is_that_of_the_scores(groups):
    rng = np.random.default_rng(5)
    first, second = measured(A, rng, groups), measured(BASE, rng, groups, shift=0.2)
    some = Resampling.of([first, second])
    paired = difference(first.scores, second.scores)
    for shares, expected in ((BOTH, paired.mean(BOTH)), ({MACRO: 2.0}, paired.macro())):
        found = some.difference(A.merge_key, BASE.merge_key, shares)
        assert found.loss_nats == pytest.approx(expected.loss_nats)
        assert found.se == pytest.approx(expected.se)
        assert (found.n_tokens, found.n_documents) == (expected.n_tokens, expected.n_documents)


def test_what_has_no_scores_is_nan_and_a_domain_without_any_is_named():
    some = Resampling.of([measured(A, np.random.default_rng(6))])
    found = some.deviations([B.merge_key, A.merge_key], BOTH, draws=3)
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1]).all()
    assert math.isnan(some.difference(A.merge_key, B.merge_key, BOTH).se)
    with pytest.raises(InputError, match="of domain `maths` is known"):
        some.deviations([A.merge_key], {"maths": 1.0})


@pytest.mark.parametrize(("documents", "enough"), [(4, False), (5, True)])
def test_under_five_groups_there_is_not_enough(documents, enough):
    some = Resampling.of([measured(A, np.random.default_rng(7), documents=documents)])
    assert some.groups() == {"code": documents, "math": documents}
    assert [some.enough(shares) for shares in (BOTH, {MACRO: 1}, {"code": 1})] == [enough] * 3
    assert not some.enough({"benchmark": 1.0})


def test_one_group_says_nothing_of_other_texts():
    some = Resampling.of([measured(A, np.random.default_rng(8), ["one"] * 3, documents=3)])
    assert np.isnan(some.deviations([A.merge_key], BOTH, draws=2)).all()


def test_a_loss_that_is_not_finite_spoils_its_own_merge_alone():
    rng = np.random.default_rng(9)
    bad = measured(A, rng)
    bad.scores.domains["code"].nll[0] = math.inf
    some = Resampling.of([bad, measured(B, rng)])
    found = some.deviations([A.merge_key, B.merge_key], BOTH, draws=20)
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1]).all()


def test_base_sizes_may_have_other_tokens_and_are_drawn_alike():
    rng = np.random.default_rng(10)
    small = measured(A, rng)
    large = MeasuredMerge(
        SubsetMerge(1, 3e5, "average", "{}", ("a",)),
        Scores(
            {
                name: DomainScores(d.lines, 2 * d.n_tokens, 2 * d.nll)
                for name, d in small.scores.domains.items()
            }
        ),
        (0, 0),
    )
    some = Resampling.of([small, large])
    keys = [small.merge.merge_key, large.merge.merge_key]
    found = some.deviations(keys, BOTH, draws=10)
    assert np.allclose(found[:, 0], found[:, 1])
    with pytest.raises(InputError, match="different base sizes"):
        some.difference(*keys, BOTH)
    with pytest.raises(InputError, match="scored on different tokens"):
        Resampling.of([small, measured(B, rng, documents=12)])


def a_run(folder, merges, *, data_hash="0123456789abcdef"):
    """A run's folder and the rows of its table."""
    (folder / "run.json").write_text(json.dumps({"texts": {"the text of size 1": data_hash}}))
    (folder / "scores.jsonl").write_bytes(b"".join(map(scores_line, merges)))
    return [
        Measurement(
            number,
            one.merge.k,
            1.0,
            "" if one.merge is BASE else one.merge.method,
            n_params=N,
            domain="code",
            subset=one.merge.subset,
            seed="0",
            data_hash=data_hash,
        )
        for number, one in enumerate(merges, 2)
    ]


def test_scores_beside_a_table_are_those_of_its_rows(tmp_path):
    rng = np.random.default_rng(11)
    groups = tuple(str(n % 8) for n in range(40))
    merges = [measured(one, rng, groups) for one in (BASE, A, B)]
    rows = a_run(tmp_path, merges)
    found = resampling_beside(tmp_path / "measurements.csv", rows[:2])
    assert set(found.columns) == {row.merge_key for row in rows[:2]}
    assert found.groups() == {"code": 8, "math": 8}
    keys = [row.merge_key for row in rows]
    direct = Resampling.of(merges).deviations(keys, BOTH, draws=5)
    read = found.deviations(keys, BOTH, draws=5)
    assert np.array_equal(read[:, :2], direct[:, :2])
    assert np.isnan(read[:, 2]).all()
    assert "groups" not in scores_line(measured(A, rng)).decode()
    assert read_scores(tmp_path)[0].scores.domains["code"].groups == groups


def test_a_bare_table_has_none(tmp_path):
    rows = a_run(tmp_path, [measured(A, np.random.default_rng(12))])
    table = tmp_path / "measurements.csv"
    assert resampling_beside(tmp_path / "elsewhere" / "measurements.csv", rows) is None
    assert resampling_beside(table, [Measurement(2, 1, 1.0, "average", subset=("a",))]) is None
    (tmp_path / "run.json").unlink()
    assert resampling_beside(table, rows) is None


def test_scores_of_another_data_hash_are_named(tmp_path):
    rows = a_run(tmp_path, [measured(A, np.random.default_rng(13))])
    (tmp_path / "run.json").write_text('{"texts": {"the text of size 1": "fedcba9876543210"}}')
    with pytest.raises(InputError, match="`data_hash`: expected `fedcba9876543210`.*0123") as told:
        resampling_beside(tmp_path / "measurements.csv", rows)
    assert "row 2" in told.value.message
    assert told.value.hint
    # A hash written in full, as `evaluate` does, is the same text.
    whole = json.dumps({"texts": {"the text of size 1": "0123456789abcdef"}})
    (tmp_path / "run.json").write_text(whole)
    object.__setattr__(rows[0], "data_hash", "0123456789abcdef" + 48 * "0")
    assert resampling_beside(tmp_path / "measurements.csv", rows) is not None


def test_rows_know_their_merge():
    def key(**given):
        return Measurement(2, 2, 1.0, "linear", subset=("a", "b"), **given).merge_key

    assert key(domain="code") == key(domain="math", metric="acc")
    assert len({key(), key(seed="1"), key(weights=(0.3, 0.7)), key(n_params=N)}) == 4
    unnamed = Measurement(2, 2, 1.0).merge_key
    assert unnamed != Measurement(2, 3, 1.0).merge_key
    assert unnamed != Measurement(2, 0, 1.0).merge_key == (None, "", "{}", (), "")


def right(merge, *items):
    n = len(items)
    return MeasuredMerge(
        merge,
        Scores({"mc": DomainScores(np.arange(n), np.ones(n, np.int64), np.array(items))}),
        (1, 1),
    )


def test_merges_that_differ_in_one_item_or_none_are_not_told_apart_with_certainty():
    """Half an item more on either side: three to one with one item, even with none."""
    items = np.arange(40.0) % 2
    one = [right(A, *items), right(B, *items), right(C, 1.0, *items[1:])]
    found = Resampling.of(one, "acc")
    shares = {"acc:mc": 1.0}
    keys = [merge.merge_key for merge in (A, B, C)]
    moved = found.deviations(keys, shares, draws=20_000)
    assert np.std(moved[:, 0] - moved[:, 1]) == pytest.approx(1 / 40, rel=0.03)
    assert 0.7 < np.mean(moved[:, 2] - moved[:, 0] + 1 / 40 > 0) < 0.8
    # A merge's draws are its own, whoever stands beside it; and it is as good as itself.
    assert np.array_equal(moved[:, 1], found.deviations(keys[1:2], shares, draws=20_000)[:, 0])
    assert found.difference(keys[0], keys[0], shares).se == 0
    apart = difference(one[2].scores, one[0].scores).macro()
    assert apart == found.difference(keys[2], keys[0], shares)
    assert apart.se == pytest.approx(math.sqrt(2) / 40, rel=0.02)
    assert difference(one[0].scores, one[1].scores).macro().se == pytest.approx(1 / 40)
    # To scores between 0 and 1 nothing is added.
    graded = [right(merge, *(items * share)) for merge, share in ((A, 0.5), (B, 0.5))]
    assert difference(graded[0].scores, graded[1].scores).macro().se == 0
