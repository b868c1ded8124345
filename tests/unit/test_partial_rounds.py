"""Rounds that score merges on few documents first, replayed on losses of every subset."""

from dataclasses import replace

import numpy as np
import pytest

from mergeplan.calibration import subset_rounds
from mergeplan.calibration.curve_rounds import Round
from mergeplan.calibration.limits import Budget
from mergeplan.calibration.subset_rounds import _laws, _race
from mergeplan.evaluation.partial import completed, covariance
from tests.tools.replay_tokens import Losses, plan_of, replay, rounds, row_of, step_of
from tests.unit.test_partial import N_DOCUMENTS, SHARES, SUBSETS, losses_of


def sweep_of(seed, own=0.01) -> Losses:
    losses = losses_of(seed, own=own)
    lengths = np.random.default_rng(7).integers(5, 50, 2 * N_DOCUMENTS)
    places = {s: n for n, s in enumerate(SUBSETS)}
    return Losses(places, losses * lengths, lengths, np.repeat(list(SHARES), N_DOCUMENTS))


def test_fewer_tokens_choose_the_same_subset():
    """The rounds themselves, on documents' losses of every subset; the first round included."""
    losses = losses_of(1, own=0.01)
    lengths = np.random.default_rng(7).integers(5, 50, 2 * N_DOCUMENTS)
    places = {s: n for n, s in enumerate(SUBSETS)}
    domain = np.repeat(list(SHARES), N_DOCUMENTS)
    sweep = Losses(places, losses * lengths, lengths, domain)
    for seed in range(2):
        named, tokens, *_ = replay(sweep, seed, partly=True)
        full, most, *_ = replay(sweep, seed, partly=False)
        assert named == full
        assert tokens < 0.75 * most


@pytest.mark.parametrize(
    ("losses", "own", "seed", "said"),
    [(2, 0.01, 1, "to tell the closest apart"), (3, 0.02, 0, "measure it")],
)
def test_what_is_named_ends_whole_and_what_is_out_is_not_asked_for_again(losses, own, seed, said):
    sweep = sweep_of(losses, own)
    plan = plan_of(sweep, seed, partly=True)
    *steps, (stop, seen) = rounds(sweep, seed, partly=True)
    assert seen[tuple(stop.reason.split(" has ")[0].split("+"))].parts is None
    asked, n_out = [], 0
    for step, before in steps[1:]:
        worse = {merge.subset for merge in _race(plan, list(before.values())).worse}
        n_out += len(worse)
        assert not worse & {merge.subset for merge in step.merges if merge not in step.whole}
        asked.append(step.reason.split("; ")[-1])
    assert n_out > 5
    assert any(said in words for words in asked)


def test_what_the_race_has_put_out_is_not_asked_for(monkeypatch):
    sweep = sweep_of(2)
    plan = plan_of(sweep, 0, partly=True)
    _, _, (step, seen), *_ = rounds(sweep, 0, partly=True)
    first, *others = step.merges
    assert first.subset in seen
    found = replace(_race(plan, list(seen.values())), worse=(first,))
    monkeypatch.setattr(subset_rounds, "_race", lambda *_: found)
    after = step_of(plan, seen).merges
    assert first not in after
    assert set(others) <= set(after)


def test_the_closest_goes_on_where_no_further_merge_may_be_begun():
    sweep = sweep_of(2)
    steps = rounds(sweep, 0, partly=True)
    step, seen = next(one for one in steps if "to tell the closest apart" in one[0].reason)
    assert {merge.subset for merge in step.merges} <= set(seen)
    plan = plan_of(sweep, 0, partly=True)
    spent = step_of(replace(plan, budget=Budget(merges=len(seen))), seen)
    assert isinstance(spent, Round)
    assert spent.merges == step.merges


def test_the_law_knows_what_errors_of_parts_have_in_common():
    sweep = sweep_of(2)
    plan = plan_of(sweep, 0, partly=True)
    _, (_, seen), *_ = rounds(sweep, 0, partly=True)
    every = list(seen.values())
    rows = [row_of(one) for one in completed(every)]
    ((_, table),) = _laws(rows, plan, (), every).found
    some = [one for one in completed(every) if not one.whole]
    keys = [one.measured.merge.merge_key for one in some]
    assert table.joint is not None
    found = table.joint(keys, {"macro": 1.0})
    assert found == pytest.approx(covariance(some, SHARES))
    assert abs(found[0, 1]) > 0
