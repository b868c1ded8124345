"""Scoring in bfloat16 where no decision changes: the rule, and runs that try it."""

import json
import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from mergeplan.calibration import dtype_of_run, dtype_trial, rounds
from mergeplan.calibration.calibrate import calibrate
from mergeplan.calibration.decision import CurveGoal
from mergeplan.calibration.dtype_rule import Asked, Compared, compare
from mergeplan.calibration.dtype_trial import LEAST_MERGES, may_try, spread
from mergeplan.calibration.limits import Budget
from mergeplan.calibration.options import CalibrateOptions, ChoiceGoal, settle
from mergeplan.calibration.setup import Setup
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.measurements.file import read_rows
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import SubsetMerge, subset_merge
from tests.support.pools import NAMES, write_pool
from tests.support.settings import DEMO_POOL

N_DOCUMENTS, EACH = 20, 100
ASKED = Asked(("macro",))


def measured(subset, loss, *, noise=0.05, seconds=1.0):
    """A merge with so much a token, and documents that differ from merge to merge."""
    rng = np.random.default_rng([len(subset), *map(ord, "".join(subset))])
    own = rng.normal(size=N_DOCUMENTS)
    own = noise * (own - own.mean()) + loss
    lines, counts = np.arange(N_DOCUMENTS), np.full(N_DOCUMENTS, EACH)
    merge = SubsetMerge(0, 1e6, "average" if subset else "base", "{}", tuple(subset))
    return MeasuredMerge(
        merge, Scores({"x": DomainScores(lines, counts, EACH * own)}), (0, seconds)
    )


LOSSES = {"": 2.0, "a": 1.8, "b": 1.9, "ab": 1.7, "abc": 1.6, "abcd": 1.65, "abcde": 1.75}
WIDE = [measured(subset, loss) for subset, loss in LOSSES.items()]


def shifted(shifts, some=WIDE):
    return [
        measured("".join(one.merge.subset), one.scores.macro().loss_nats + shift)
        for one, shift in zip(some, shifts, strict=True)
    ]


def test_a_shift_that_all_merges_share_is_harmless_unless_a_target_is_to_be_reached():
    found = compare(WIDE, shifted([0.04] * 7), "macro", ASKED)
    assert found.fault == ""
    assert found.change == pytest.approx(0, abs=1e-12)
    near = compare(WIDE, shifted([0.04] * 7), "macro", replace(ASKED, target=1.62))
    assert near.fault == "`a+b+c` reaches the target in one dtype alone"
    far = compare(WIDE, shifted([0.04] * 7), "macro", replace(ASKED, target=1.0))
    assert far.fault.startswith("the shift varies by up to 0.083, more than ")


def test_small_changes_are_taken_and_the_largest_of_a_difference_is_told():
    shifts = [0.001, 0, 0.0004, -0.0005, 0, 0, 0.0002]
    found = compare(WIDE, shifted(shifts), "macro", ASKED)
    assert found.fault == ""
    assert found.change == pytest.approx(0.0015)


def test_a_pair_that_is_told_apart_in_one_dtype_alone_is_named():
    close = [measured(s, loss + (0.013 if s == "abcd" else 0)) for s, loss in LOSSES.items()]
    (pair,) = [(close[4], close[5])]
    se = math.hypot(*(one.scores.macro().se for one in pair))
    assert 0.063 / se > 1.6  # told apart, and by no more than a little
    found = compare(close, shifted([0, 0, 0, 0, 0.02, -0.04, 0], close), "macro", ASKED)
    assert found.fault == "`a+b+c` and `a+b+c+d` are not told apart in one dtype alone"


def test_another_best_is_a_fault_though_no_pair_is_told_apart():
    alike = [measured(s, 2 + 1e-5 * n, noise=0.5) for n, s in enumerate(LOSSES)]
    found = compare(alike, shifted([0, 0, 0, 0, -1e-4, 0, 0], alike), "macro", ASKED)
    assert found.fault == "the best is the base, or `a+b+c`"
    turned = compare(alike, shifted([0, 0, 1e-4, 0, 0, 0, 0], alike), "macro", ASKED)
    assert "the best is" not in turned.fault
    higher = replace(ASKED, higher=True)
    turned = compare(alike, shifted([0, 0, 1e-4, 0, 0, 0, 0], alike), "macro", higher)
    assert turned.fault == "the best is `a+b+c+d+e`, or `b`"


def test_a_shift_that_varies_too_much_for_what_the_merges_differ_by_is_refused():
    up_and_down = np.array([0, 1, -1, 1, -1, 1, -1.0])
    assert compare(WIDE, shifted(0.0015 * up_and_down), "macro", ASKED).fault == ""
    found = compare(WIDE, shifted(0.0025 * up_and_down), "macro", ASKED)
    # Seven merges: 2.1 times what is seen, against a third of 0.0148 over the root of 2.
    assert found.fault == "the shift varies by up to 0.0048, more than 0.0035 by the paired errors"
    exact = [measured(s, loss, noise=1e-6) for s, loss in LOSSES.items()]
    small = [
        measured("".join(one.merge.subset), one.scores.macro().loss_nats + shift, noise=1e-6)
        for one, shift in zip(exact, 0.01 * up_and_down, strict=True)
    ]
    assert compare(exact, small, "macro", ASKED).fault.endswith(
        "more than 0.011 by the values' spread"
    )


def test_a_loss_that_is_not_finite_is_refused():
    found = compare(WIDE, shifted([0, math.nan, 0, 0, 0, 0, 0]), "macro", ASKED)
    assert found.fault == "`a` has no finite value"


def test_merges_from_single_experts_to_all_are_tried(tmp_path):
    pool = load_pool(write_pool(tmp_path))
    every = [subset_merge(pool, 0, "dare", s) for k in range(6) for s in combinations(NAMES, k)]
    found = spread(every)
    assert [merge.k for merge in found] == [0, 1, 2, 2, 3, 3, 5]
    assert spread(every[: LEAST_MERGES - 1]) == []
    assert spread(every[:5] + every[:1] * 9) == []


def test_what_is_no_cpu_or_has_its_dtype_is_not_tried(monkeypatch):
    monkeypatch.setattr(dtype_trial, "computes_bfloat16", lambda: True)
    assert may_try(Setup(device="cpu"))
    assert not may_try(Setup(device="cuda"))
    assert not may_try(Setup(device="cpu", dtype="float32"))
    monkeypatch.setattr(dtype_trial, "computes_bfloat16", lambda: False)
    assert not may_try(Setup(device="cpu"))


class Killed(BaseException):
    """Nothing may catch it, as nothing catches a kill."""


class FakeWorker:
    """Losses by a formula; what is scored is written down.

    Attributes:
        scored: Dtype and key of each merge.
        sloped: k of those that were to have slopes.
        shift: Of a merge in bfloat16.
        faster: How many times bfloat16 is.
        left: Merges until it is killed.
    """

    scored: ClassVar[list] = []
    sloped: ClassVar[list] = []
    shift = staticmethod(lambda _: 0.01)
    faster = 3.0
    left = math.inf

    def __init__(self, pool, size, setup, texts=None, tasks=None):
        self.dtype, self.texts = setup.dtype, texts

    def measure(self, merges, some, parts=None, slopes=()):
        for number in some:
            if type(self).left <= 0:
                raise Killed
            type(self).left -= 1
            merge = merges[number]
            type(self).scored.append((self.dtype, merge.key))
            type(self).sloped += [merge.k] * (number in slopes)
            narrow = self.dtype == "bfloat16"
            loss = 2 - 0.3 * merge.k / (merge.k + 1) + 0.001 * len("".join(merge.subset))
            own = np.random.default_rng([merge.k, *map(ord, merge.key)]).normal(size=3)
            loss += self.shift(merge) if narrow else 0
            domains = {
                name: DomainScores(
                    one.lines, one.n_tokens, (loss + 0.03 * own[: len(one.lines)]) * one.n_tokens
                )
                for name, one in self.texts.domains.items()
            }
            seconds = 0.0, 3.0 / self.faster if narrow else 3.0
            yield MeasuredMerge(merge, Scores(domains), seconds)


@pytest.fixture
def trying(tmp_path, monkeypatch):
    """A pool, and what measures its merges on a CPU that computes in bfloat16."""

    class Own(FakeWorker):
        scored: ClassVar[list] = []
        sloped: ClassVar[list] = []

    monkeypatch.setattr(dtype_trial, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(dtype_of_run, "LEAST_WORK", 0)
    monkeypatch.setattr(rounds, "Worker", Own)
    return write_pool(tmp_path), Own


def options(pool_file, method="dare", **changes):
    pool = load_pool(pool_file)
    some = [subset_merge(pool, 0, method, s) for k in (0, 1, 2, 5) for s in combinations(NAMES, k)]
    return CalibrateOptions(listed=tuple(some), setup=Setup(device="cpu"), **changes)


def test_bfloat16_is_taken_for_all_and_nothing_is_scored_twice(trying, tmp_path):
    pool, worker = trying
    done = calibrate(pool, tmp_path / "run", options(pool))
    assert done.arithmetic == (
        "bfloat16: 7 merges in both dtypes, no decision changes, differences change by at most"
        f" {done.arithmetic.split('most ')[1].split()[0]} nats; 3.0 times faster"
    )
    assert done.arithmetic in done.summary()
    assert done.n_measured == 17
    assert [dtype for dtype, _ in worker.scored] == ["float32"] * 7 + ["bfloat16"] * 17
    assert len(set(worker.scored)) == 24
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["arithmetic"]
    assert (recorded["`--dtype`"], recorded["what `--dtype auto` is"]) == ("auto", "bfloat16")
    head = json.loads((tmp_path / "run" / "dtype.jsonl").read_text().splitlines()[0])
    assert (head["dtype"], len(head["values"])) == ("bfloat16", 7)
    assert all(b - a == pytest.approx(0.01) for a, b in head["values"].values())
    again = calibrate(pool, tmp_path / "run", options(pool))
    assert (again.n_measured, again.arithmetic) == (0, done.arithmetic)
    assert len(worker.scored) == 24
    with pytest.raises(InputError, match="`--dtype` was auto in the run"):
        calibrate(
            pool,
            tmp_path / "run",
            replace(options(pool), setup=Setup(dtype="float32", device="cpu")),
        )
    # What `auto` came to may be said.
    narrow = replace(options(pool), setup=Setup(dtype="bfloat16", device="cpu"))
    assert calibrate(pool, tmp_path / "run", narrow).arithmetic == done.arithmetic
    (tmp_path / "run" / "dtype.jsonl").unlink()
    bare = calibrate(pool, tmp_path / "run", replace(options(pool), listed=(), also=(NAMES[:3],)))
    assert bare.arithmetic == "bfloat16: as this run began"
    assert {dtype for dtype, _ in worker.scored[24:]} == {"bfloat16"}


@pytest.mark.parametrize("left", [5, 7, 20])
def test_a_run_that_is_killed_goes_on_with_its_trial(trying, tmp_path, left):
    pool, worker = trying
    whole = calibrate(pool, tmp_path / "whole", options(pool))
    expected = list(worker.scored)
    worker.scored, worker.left = [], left
    with pytest.raises(Killed):
        calibrate(pool, tmp_path / "run", options(pool))
    worker.left = math.inf
    done = calibrate(pool, tmp_path / "run", options(pool))
    assert done.arithmetic == whole.arithmetic
    assert worker.scored == expected
    assert done.table.read_bytes() == whole.table.read_bytes()


def test_where_a_decision_changes_all_is_scored_in_float32(trying, tmp_path):
    pool, worker = trying
    worker.shift = staticmethod(lambda merge: 0.2 * (merge.k == 5))
    done = calibrate(pool, tmp_path / "run", options(pool))
    assert done.arithmetic.startswith("float32: in bfloat16 a decision may change: ")
    assert done.arithmetic.count("`html+js+md+perl+python`") == 1
    assert [dtype for dtype, _ in worker.scored][14:] == ["float32"] * 10
    again = calibrate(pool, tmp_path / "run", options(pool))
    assert (again.arithmetic, len(worker.scored)) == (done.arithmetic, 24)
    worker.scored.clear()
    given = replace(options(pool), setup=Setup(dtype="float32", device="cpu"))
    plain = calibrate(pool, tmp_path / "plain", given)
    assert plain.table.read_bytes() == done.table.read_bytes()
    assert (plain.arithmetic, len(worker.scored)) == ("float32: by `--dtype`", 17)


def test_what_is_to_have_slopes_is_measured_anew_after_a_trial(trying, tmp_path):
    _, worker = trying
    worker.shift = staticmethod(lambda merge: 0.2 * (merge.k == 6))
    experts = {name: str(DEMO_POOL / name) for name in (*NAMES, "json")}
    sizes = [{"base": str(DEMO_POOL / "base"), "experts": experts}]
    pool = write_pool(tmp_path, sizes=sizes, methods={"average": {}})
    few = CalibrateOptions(
        choosing=ChoiceGoal(), budget=Budget(merges=10), setup=Setup(device="cpu")
    )
    done = calibrate(pool, tmp_path / "run", few)
    assert done.arithmetic.startswith("float32: ")
    # All six together are among what the trial scored, without slopes.
    assert sorted(worker.sloped) == [3, 3, 6]


def test_every_size_must_agree(trying, tmp_path):
    pool, worker = trying
    models = json.loads(pool.read_text())["sizes"][0]
    write_pool(tmp_path, sizes=[{**models, "n_params": 400_000}, models])
    every = options(pool).listed
    some = (*every[:11], every[-1])
    n_params = load_pool(pool).sizes[1].count_params()
    small = [replace(merge, size=1, n_params=n_params) for merge in some]
    given = replace(options(pool), listed=(*some, *small))
    worker.shift = staticmethod(lambda merge: 0.2 * (merge.k == 5 and merge.size == 1))
    done = calibrate(pool, tmp_path / "run", given)
    assert done.arithmetic.startswith("float32: in bfloat16 a decision may change: ")
    tried = ["float32"] * 14 + ["bfloat16"] * 14
    assert [dtype for dtype, _ in worker.scored] == tried + ["float32"] * 10
    worker.shift = staticmethod(lambda _: 0.01)
    done = calibrate(pool, tmp_path / "other", given)
    assert done.arithmetic.startswith("bfloat16: 14 merges in both dtypes")


def test_where_bfloat16_is_no_faster_one_merge_tells(trying, tmp_path):
    pool, worker = trying
    worker.faster = 1.1
    done = calibrate(pool, tmp_path / "run", options(pool))
    assert done.arithmetic == "float32: bfloat16 is 1.1 times as fast here"
    assert [dtype for dtype, _ in worker.scored] == ["float32"] * 7 + ["bfloat16"] + [
        "float32"
    ] * 10


def test_a_trial_that_would_eat_the_budget_is_left(trying, tmp_path):
    pool, worker = trying
    done = calibrate(pool, tmp_path / "run", options(pool, budget=Budget(seconds=80)))
    assert done.arithmetic.startswith("float32: trying bfloat16 would take more than half")
    assert [dtype for dtype, _ in worker.scored] == ["float32"] * 17


def test_what_the_other_dtype_took_comes_off_the_budget(trying, tmp_path):
    pool, worker = trying
    given = replace(options(pool), listed=None, methods=("dare",), until=0)
    n_tokens = settle(pool, tmp_path / "none", given)[1].texts[0].n_tokens
    given = replace(given, budget=Budget(tokens=29 * n_tokens))
    done = calibrate(pool, tmp_path / "run", given)
    assert done.arithmetic.startswith("bfloat16")
    assert [dtype for dtype, _ in worker.scored] == ["float32"] * 7 + ["bfloat16"] * 22


def test_little_work_is_not_worth_a_trial(trying, tmp_path, monkeypatch):
    pool, worker = trying
    monkeypatch.setattr(dtype_of_run, "LEAST_WORK", dtype_trial.LEAST_WORK)
    done = calibrate(pool, tmp_path / "run", options(pool))
    assert done.arithmetic == "float32: as `auto` is on a CPU without a trial of bfloat16"
    assert done.arithmetic in done.summary()
    assert [dtype for dtype, _ in worker.scored] == ["float32"] * 17
    assert not (tmp_path / "run" / "dtype.jsonl").exists()
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["arithmetic"]
    assert (recorded["`--dtype`"], recorded["what `--dtype auto` is"]) == ("auto", "float32")
    # What began without a trial goes on without one, also where its dtype is said.
    monkeypatch.setattr(dtype_of_run, "LEAST_WORK", 0)
    for dtype in ("auto", "float32"):
        given = replace(options(pool), setup=Setup(dtype=dtype, device="cpu"))
        again = calibrate(pool, tmp_path / "run", given)
        assert (again.arithmetic, again.n_measured) == ("float32: as this run began", 0)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arithmetic"] == recorded
    narrow = replace(options(pool), setup=Setup(dtype="bfloat16", device="cpu"))
    with pytest.raises(InputError, match="`--dtype` was auto in the run"):
        calibrate(pool, tmp_path / "run", narrow)


@pytest.mark.parametrize(("own", "used"), [("bfloat16", "bfloat16"), (None, "auto")])
def test_elsewhere_than_on_a_cpu_the_bases_own_dtype_is_told(
    own, used, trying, tmp_path, monkeypatch
):
    pool, worker = trying
    monkeypatch.setattr(Setup, "on_cpu", lambda _: False)
    monkeypatch.setattr(
        dtype_of_run, "open_stored", lambda _: SimpleNamespace(config={"torch_dtype": own})
    )
    done = calibrate(pool, tmp_path / "run", options(pool))
    said = {"bfloat16": "bfloat16: the base's own", "auto": "auto: each base's own dtype"}
    assert (done.arithmetic, {dtype for dtype, _ in worker.scored}) == (said[used], {used})
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["arithmetic"]
    assert recorded.get("what `--dtype auto` is") == own


def test_a_real_pool_is_scored_in_bfloat16(tmp_path, monkeypatch):
    monkeypatch.setattr(dtype_trial, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(dtype_of_run, "LEAST_WORK", 0)
    monkeypatch.setattr(dtype_trial, "LEAST_SPEEDUP", 0)
    # Whether a decision changes, of three documents a domain, may differ from CPU to CPU.
    monkeypatch.setattr(dtype_trial, "compare", lambda *_: Compared(0.001))
    pool = write_pool(tmp_path)
    given = options(pool, method="task_arithmetic")
    given = replace(given, listed=given.listed[:11] + given.listed[-1:])
    done = calibrate(pool, tmp_path / "run", given)
    assert done.arithmetic.startswith("bfloat16: 7 merges in both dtypes, no decision changes")
    head = json.loads((tmp_path / "run" / "dtype.jsonl").read_text().splitlines()[0])
    rows, _ = read_rows(done.table)
    values = {round(row.loss_nats, 8) for row in rows if row.domain == "macro"}
    assert len(values) == 12
    for wide, narrow in head["values"].values():
        assert 0 < abs(wide - narrow) < 0.01
        assert round(narrow, 8) in values


def test_what_fails_in_bfloat16_is_scored_in_float32(trying, tmp_path, monkeypatch):
    pool, worker = trying

    class Failing(worker):
        def measure(self, merges, some, parts=None, slopes=()):
            if self.dtype == "bfloat16":
                raise InputError("scorer `own.py`, line 9: TypeError: Got unsupported ScalarType")
            yield from super().measure(merges, some, parts)

    monkeypatch.setattr(rounds, "Worker", Failing)
    done = calibrate(pool, tmp_path / "run", options(pool))
    assert done.arithmetic == (
        "float32: bfloat16 fails: scorer `own.py`, line 9: TypeError: Got unsupported ScalarType"
    )
    assert [dtype for dtype, _ in worker.scored] == ["float32"] * 17
    again = calibrate(pool, tmp_path / "run", options(pool))
    assert (again.n_measured, again.arithmetic) == (0, done.arithmetic)


def test_another_question_of_a_run_in_bfloat16_is_held_against_its_trial(trying, tmp_path):
    pool, worker = trying
    given = replace(options(pool), listed=None, methods=("dare",), until=0)
    done = calibrate(pool, tmp_path / "run", given)
    assert done.arithmetic.startswith("bfloat16: 7 merges in both dtypes")
    values = json.loads((tmp_path / "run" / "dtype.jsonl").read_text().splitlines()[0])["values"]
    # All merges lose 0.01 in bfloat16: one of them reaches this in float32 alone.
    target = float(np.mean(list(values.values())[-1]))
    again = calibrate(pool, tmp_path / "run", replace(given, wish=CurveGoal(target_loss=target)))
    assert again.arithmetic == (
        "bfloat16, as this run began; by what is asked now a decision may change:"
        " `html+js+md+perl+python` reaches the target in one dtype alone"
    )
    assert {dtype for dtype, _ in worker.scored[7:]} == {"bfloat16"}


def in_part(one, shift=0.0):
    """Its losses, of documents of which the first quarter is easier; of that alone of most."""
    domain = one.scores.domains["x"]
    nll = domain.nll + EACH * (shift - 1.0 * (domain.lines < N_DOCUMENTS // 4))
    upto = None if one.merge.k in (0, 5) else 1
    some = slice(None, N_DOCUMENTS // 4 if upto else None)
    scores = Scores({"x": DomainScores(domain.lines[some], domain.n_tokens[some], nll[some])})
    return replace(one, scores=scores, parts=upto)


def test_merges_that_were_scored_in_part_are_compared_on_all_documents():
    exact = [measured(s, loss, noise=1e-6) for s, loss in LOSSES.items()]
    up_and_down = 0.01 * np.array([0, 1, -1, 1, -1, 1, -1.0])
    narrow = [in_part(one, shift) for one, shift in zip(exact, up_and_down, strict=True)]
    found = compare([in_part(one) for one in exact], narrow, "macro", ASKED)
    # The easier documents of some would make the values differ by far more.
    assert found.fault.endswith("more than 0.011 by the values' spread")


def test_several_domains_must_agree_each_by_itself(trying, tmp_path, monkeypatch):
    pool, worker = trying
    names = list(load_pool(pool).data)

    class OneTurns(worker):
        def measure(self, merges, some, parts=None, slopes=()):
            for one in super().measure(merges, some, parts):
                domains = dict(one.scores.domains)
                if self.dtype == "bfloat16":
                    for name, sign in zip(names, (1, -1), strict=False):
                        own = domains[name]
                        shift = 0.4 * sign * (one.merge.k == 1) * own.n_tokens
                        domains[name] = replace(own, nll=own.nll + shift)
                yield replace(one, scores=Scores(domains))

    monkeypatch.setattr(rounds, "Worker", OneTurns)
    choosing = ChoiceGoal(domains=",".join(names))
    done = calibrate(pool, tmp_path / "run", replace(options(pool), choosing=choosing))
    # Their mean has not changed at all.
    assert done.arithmetic.startswith("float32: in bfloat16 a decision may change: ")


def test_merges_that_are_scored_in_part_are_tried_in_part():
    given = []

    class Scoring:
        def measure(self, merges, some, parts):
            given.extend(parts)
            yield from (replace(WIDE[number], merge=merges[number]) for number in some)

    merges = [one.merge for one in WIDE[:2]]
    upto = {merges[0]: N_PARTS, merges[1]: 1}
    found = dtype_of_run._scored(
        {0: upto}, Setup(), lambda *_: Scoring(), 0, dtype_trial.BFLOAT16, merges
    )
    assert [one.parts for one in found] == [None, 1]
    assert given == [None, range(1)]
