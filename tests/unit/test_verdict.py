"""The verdict: of all that is known the best, and never surer than its ground."""

import json
import shlex
from dataclasses import replace
from itertools import combinations
from math import erfc, sqrt
from pathlib import Path

import numpy as np
import pytest

from mergeplan.errors import InputError
from mergeplan.evaluation.measured import MeasuredMerge, scores_line
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.law.file import save_law
from mergeplan.law.fit import fit
from mergeplan.law.recommend import recommend
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.measurements.rows import Measurement
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.choices import Choice
from mergeplan.selection.problem import Constraint
from mergeplan.selection.table import tables_of
from mergeplan.verdict.answer import MeasureCommand, predictions, verdict_of
from mergeplan.verdict.contenders import Bounds, Contender, Predictions
from mergeplan.verdict.decide import decide
from mergeplan.verdict.field import Question
from mergeplan.verdict.known import Merge
from mergeplan.verdict.lambdas import lambda_to_try
from mergeplan.verdict.parts import Harm
from mergeplan.verdict.words import harms_text
from mergeplan.verdict.write import merge_to_write

EXPERTS = ("code", "html", "math", "prose")
TASK = {"method": "task_arithmetic", "options": '{"lambda": 0.5}'}


def row(subset, loss, domain="macro", **more):
    names = tuple(sorted(subset.split("+"))) if subset else ()
    given = {**(TASK if names else {}), "n_params": 80592.0, "pool_size": 4, **more}
    return Measurement(2, len(names), loss, domain=domain, subset=names, **given)


def table(tmp_path, rows):
    path = tmp_path / "measurements.csv"
    path.write_text(table_text(rows, COLUMNS))
    return path


def quadratic(experts, pull, base=2.0):
    """Losses of all subsets of a plain quadratic form."""
    found = [row("", base)]
    for k in range(1, len(experts) + 1):
        for names in combinations(experts, k):
            x = np.zeros(len(experts))
            x[[experts.index(name) for name in names]] = 1 / k
            found.append(row("+".join(names), float(base + pull @ x + 0.1 * x @ x)))
    return found


def test_the_best_measured_merge_is_taken_and_no_random_draw(tmp_path):
    rows = [row("", 2.0), row("code", 1.9), row("html", 1.95), row("code+html", 1.8)]
    rows += [row("code+math", 1.99), row("math", 2.1), row("code+html+math", 1.97)]
    verdict = verdict_of(table(tmp_path, rows))
    assert (verdict.kind, verdict.chosen.merge.subset) == ("merge", ("code", "html"))
    assert verdict.chosen.measured
    assert not verdict.fails
    assert [round(gain.value, 9) for gain in verdict.gains] == [0.2, 0.1]
    assert verdict.gains[0].low is None
    assert "on this text only" in verdict.summary()


def test_the_best_expert_of_few_that_were_measured_is_called_so(tmp_path):
    rows = [row("", 2.0), row("code", 1.9), row("html", 1.95), row("code+html", 1.8)]
    some = verdict_of(table(tmp_path, rows)).summary()
    assert "of 4 experts 2 were measured alone, `code`, `html`: the best one, and" in some
    rows += [row("math", 1.9), row("prose", 1.9)]
    assert "measured alone" not in verdict_of(table(tmp_path, rows)).summary()
    curve = fit(table(tmp_path, [*rows[:4], row("code+html+math+prose", 1.7)]))
    assert "best single expert: `code`, 1.9000, of 2 measured" in recommend(curve).summary()


def test_every_method_and_lambda_is_a_candidate(tmp_path):
    rows = [row("", 2.0), row("code", 1.9), row("html", 1.95), row("code+html", 1.8)]
    rows += [
        row("code+html", 1.7, options='{"lambda": 0.3}'),
        row("code+html", 1.75, method="ties"),
    ]
    chosen = verdict_of(table(tmp_path, rows)).chosen
    assert (chosen.value, chosen.merge.options) == (1.7, '{"lambda": 0.3}')


@pytest.mark.parametrize(
    ("single", "kind", "fails", "merge"),
    [
        ({"method": "average", "options": "{}"}, "expert", False, False),
        (TASK, "merge", False, True),  # at half strength it is no expert as it is
    ],
)
def test_a_single_expert_may_be_the_answer(tmp_path, single, kind, fails, merge):
    rows = [row("", 2.0), row("code", 1.7, **single), row("html", 1.95), row("code+html", 1.8)]
    verdict = verdict_of(table(tmp_path, rows))
    assert (verdict.kind, verdict.fails, verdict.merge is not None) == (kind, fails, merge)
    assert verdict.chosen.merge.subset == ("code",)


def test_where_nothing_beats_the_base_it_is_kept_and_a_lambda_named(tmp_path):
    rows = [row("", 1.6), row("code", 1.7), row("html", 1.95), row("code+html", 1.65)]
    verdict = verdict_of(table(tmp_path, rows))
    assert (verdict.kind, verdict.fails, verdict.merge) == ("base", True, None)
    assert verdict.best_merge.merge.subset == ("code", "html")
    assert "merging does not pay, keep the base" in verdict.headline()
    assert f"lambda, such as {verdict.lambda_to_try:g}" in verdict.headline()
    assert verdict.lambda_to_try == 0.25
    # Along lambda the loss is 1.6 - 0.1·x + 0.4·x² here, lowest at 0.125.
    scan = [
        row("code+html", 1.6 - 0.1 * x + 0.4 * x * x, options=f'{{"lambda": {x}}}')
        for x in (0.5, 1)
    ]
    known = verdict_of(table(tmp_path, [row("", 1.6), *scan]))
    assert known.lambda_to_try == pytest.approx(0.125, abs=1e-3)


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(keep=(Constraint("macro", 99.0),))])
def test_a_larger_base_that_is_better_than_every_merge_is_kept(bounds):
    """The smaller size's merge was taken: only its own base was asked whether it pays."""
    large = {"n_params": 1e9}
    rows = [row("", 1.64), row("code", 1.76), row("html", 1.8), row("code+html", 1.54)]
    rows += [row(s, v, **large) for s, v in (("", 0.57), ("code", 0.66), ("code+html", 0.59))]
    verdict = decide(rows, (), Question(bounds=bounds))
    assert (verdict.kind, verdict.fails, verdict.chosen.merge.n_params) == ("base", True, 1e9)
    assert "keep the base at 1B: no merge is better than it (the best" in verdict.headline()
    assert (verdict.best_merge.value, verdict.lambda_to_try) == (0.59, 0.25)
    assert "merging pays at 80.6k, where code+html by task arithmetic" in verdict.summary()
    # A merge of the larger size that beats that base is taken, and of a target the cheapest.
    better = [*rows, row("html", 0.55, **large), row("code+html+math", 0.5, **large)]
    assert decide(better, (), Question(bounds=bounds)).chosen.value == 0.5
    assert decide(rows, (), Question(target=1.6)).chosen.value == 1.54


def test_a_base_that_reaches_the_target_by_itself_is_enough():
    rows = [row("", 1.6), row("code", 1.7), row("html", 1.95), row("code+html", 1.65)]
    verdict = decide(rows, (), Question(target=1.7))
    assert (verdict.kind, verdict.fails, verdict.reached) == ("base", True, True)
    assert "keep the base at 80.6k: it reaches the target by itself" in verdict.headline()
    assert verdict.failure() == "the base reaches 1.7 by itself: nothing is to be merged"


def test_a_prediction_is_to_be_measured_before_it_is_taken(tmp_path):
    pull = np.array([-0.1, -0.09, -0.02, 0.2])
    whole = quadratic(EXPERTS, pull)
    best = min(whole, key=lambda one: one.loss_nats).subset
    noise = np.random.default_rng(3)
    few = [
        row("+".join(one.subset), one.loss_nats + (noise.normal(0, 0.004) if one.k > 1 else 0))
        for one in whole
        if one.subset != best
    ]
    verdict = verdict_of(table(tmp_path, few))
    assert verdict.kind in ("measure", "merge")
    assert verdict.to_measure is not None
    first = verdict.to_measure.merges[0]
    assert first.merge.subset == best
    assert not first.measured
    assert verdict.to_measure.gain > 0
    assert f"--also {'+'.join(best)}" in verdict.to_measure.command
    if verdict.kind == "measure":
        assert verdict.chosen.measured
        assert "measure more; the best that is known is" in verdict.headline()
    # Once it is measured, the answer stands on it.
    done = verdict_of(table(tmp_path, whole))
    assert (done.kind, done.chosen.merge.subset, done.to_measure) == ("merge", best, None)


def test_where_no_merge_was_measured_some_are_asked_for():
    """Single experts that are worse than the base said that merging does not pay."""
    as_it_is = {"method": "average", "options": "{}"}
    rows = [row(s, 1.7 + 0.1 * n, **as_it_is) for n, s in enumerate(EXPERTS)]
    verdict = decide([row("", 1.6), *rows], command=MeasureCommand(Path("m.csv")))
    assert (verdict.kind, verdict.chosen.merge.k, verdict.merge) == ("measure", 0, None)
    asked = [one.merge.subset for one in verdict.to_measure.merges]
    assert asked == [("code", "html"), EXPERTS]
    assert "nothing says whether merging pays" in str(verdict)
    assert "--also code+html --also code+html+math+prose" in str(verdict)
    assert "nan" not in str(verdict)
    assert decide(rows).kind == "measure"
    assert decide(rows, (), Question(target=1.7)).kind == "expert"
    # One merge is enough for a verdict, of the size that was asked.
    merged = [row("", 1.6), *rows, row("code+html", 1.65)]
    assert decide(merged).kind == "base"
    larger = decide([*merged, row("", 0.5, n_params=1e9)])
    assert (larger.kind, larger.chosen.value) == ("base", 0.5)


def test_a_merge_that_is_all_there_is_is_compared_with_nothing():
    verdict = decide([row("code+html", 1.65)])
    assert (verdict.kind, verdict.fails) == ("measure", False)
    assert "is all that was measured and is compared with nothing" in str(verdict)
    assert decide([row("code+html", 1.65), row("code+math", 1.7)]).kind == "merge"
    assert decide([row("code+html", 1.65)], (), Question(target=1.7)).kind == "merge"


def test_a_target_takes_the_fewest_experts_that_reach_it(tmp_path):
    rows = [row("", 2.0), row("code", 1.9), row("html", 1.95), row("math", 1.97)]
    rows += [row("code+html", 1.8), row("code+html+math", 1.7)]
    assert verdict_of(table(tmp_path, rows), 1.85).chosen.merge.k == 2
    assert verdict_of(table(tmp_path, rows), 1.75).chosen.merge.k == 3
    # Several would be better, and are not needed.
    enough = verdict_of(table(tmp_path, rows), 1.92).headline()
    assert enough.endswith(
        "merge the expert `code` by task arithmetic, λ 0.5 at 80.6k; one expert is enough"
    )
    missed = verdict_of(table(tmp_path, rows), 1.2)
    assert missed.fails
    assert not missed.reached
    assert missed.merge is None
    assert "nothing reaches a loss of 1.2; the nearest is code+html+math" in missed.headline()


def test_bounds_keep_out_what_was_measured():
    rows = [row("", 2.0), row("code", 1.9), row("code+html", 1.7), row("code+html", 2.5, "html")]
    rows += [row("code", 1.1, "html"), row("", 1.2, "html")]
    question = Question("macro", bounds=Bounds(keep=(Constraint("html", 1.15),)))
    verdict = decide(rows, (), question)
    assert verdict.chosen.merge.subset == ("code",)


def test_a_bound_on_a_mean_is_held_against_the_mean_of_what_was_measured():
    losses = {"": (2.0, 1.2), "code": (1.9, 1.1), "code+html": (1.7, 2.5)}
    rows = []
    for names, values in losses.items():
        rows += [row(names, v, d) for d, v in zip(("code", "html"), values, strict=True)]
        rows.append(row(names, sum(values) / 2))
    # The means are 1.6, 1.5 and 2.1: by the first domain alone all of them would do.
    question = Question("code", bounds=Bounds(keep=(Constraint("code,html", 1.9),)))
    assert decide(rows, (), question).chosen.merge.subset == ("code",)
    with pytest.raises(InputError, match="no rows of domain or metric `htm`"):
        decide(rows, (), Question("code", bounds=Bounds(keep=(Constraint("htm", 1.9),))))


def test_a_domain_that_may_be_no_worse_is_told_apart_from_those_that_are():
    harms = (
        Harm("js", "the base", 0.05, 0.01, 0.09),
        Harm("md", "the base", 0.01, -0.01, 0.03),
        Harm("css", "the base", 0.02),
    )
    where = "than the base (90 % on texts of this kind)"
    assert harms_text(harms, predicted=False) == [
        f"worse {where}: js by 0.0500 (+0.0100 to +0.0900), css by 0.0200",
        f"perhaps worse {where}: md by 0.0100 (-0.0100 to +0.0300)",
    ]


def test_a_base_that_breaks_the_bounds_is_nothing_to_stay_with():
    rows = [row("", 1.6), row("code", 1.9), row("code+html", 1.8)]
    rows += [row("", 1.5, "html"), row("code", 1.1, "html"), row("code+html", 1.1, "html")]
    assert decide(rows, (), Question("macro")).kind == "base"
    bounds = Bounds(keep=(Constraint("html", 1.2),))
    verdict = decide(rows, (), Question("macro", bounds=bounds))
    assert (verdict.kind, verdict.fails) == ("merge", False)
    assert "0.2000 worse than the base on this text" in verdict.summary()
    assert "the base does not keep the bounds, and does not count" in verdict.summary()


def test_bounds_that_leave_out_all_that_is_known_are_a_verdict_of_their_own():
    rows = [row("", 1.6), row("code", 1.9), row("code+html", 1.8)]
    verdict = decide(rows, (), Question(bounds=Bounds(keep=(Constraint("macro", 1.0),))))
    assert (verdict.kind, verdict.chosen, verdict.merge) == ("nothing", None, None)
    assert verdict.fails
    assert verdict.failure() == "nothing is within `macro<=1`"
    assert verdict.headline() == "verdict for `macro`: nothing is within `macro<=1`"


def test_where_no_merge_has_every_domain_that_counts_it_is_said():
    rows = [row("code", 1.9, "code"), row("html", 1.8, "html")]
    with pytest.raises(InputError, match="no merge was measured on all that `macro` is of"):
        decide(rows)


def unsure(regret):
    """Averages whose best is measured, and what the law expects it to lose."""
    whole = [
        replace(one, **({"method": "average", "options": "{}"} if one.k else {}))
        for one in quadratic(EXPERTS, np.array([-0.1, -0.09, -0.02, 0.2]))
    ]
    rows = [one for one in whole if one.subset != ("code", "math")]
    (some,) = predictions(rows, None).found
    best = min((one for one in rows if one.k), key=lambda one: one.loss_nats)
    by_size = {best.k: Choice(dict.fromkeys(best.subset, 1 / best.k), *[best.loss_nats] * 3, True)}
    sure = replace(some.sure, regret=regret, next=(("code", "math"),))
    return rows, replace(some, by_size=by_size, sure=sure)


def test_a_merge_that_may_lose_more_than_it_gains_is_not_final():
    """The verdict was to merge, beside a chance of under 1 % that this was the best."""
    rows, some = unsure(regret=0.001)
    final = decide(rows, [some])
    assert (final.kind, final.to_measure) == ("merge", None)
    least = min(gain.value for gain in final.gains)
    verdict = decide(rows, [replace(some, sure=replace(some.sure, regret=least + 0.001))])
    assert (verdict.kind, verdict.chosen) == ("measure", final.chosen)
    assert [one.merge.subset for one in verdict.to_measure.merges] == [("code", "math")]
    assert "the best of those that were not measured is expected to be better by" in str(verdict)
    # A target that is reached is enough.
    target = Question(target=final.chosen.value + 0.01)
    assert decide(rows, [some], target).to_measure is None


def test_that_little_is_predicted_is_said_of_the_size_that_is_taken():
    """It was left out where any other size was predicted well."""
    rows, some = unsure(regret=0.0)
    other = replace(some, table=replace(some.table, n_params=1e6), r2=0.99)
    assert "hardly predicted" not in str(decide(rows, [some, other]))
    assert "hardly predicted" in str(decide(rows, [replace(some, r2=0.5), other]))
    assert "hardly predicted" not in str(decide(rows, [some, replace(other, r2=0.5)]))


def weighted(value, **weights):
    merge = Merge(80592.0, "average", "{}", weights)
    return Contender(merge, value, value - 0.01, value + 0.01)


def test_what_is_to_be_measured_has_its_own_gain_beside_better_weights_of_the_same_experts():
    """The gain of the weights stood beside the plain subset."""
    rows = [row(s, v, method="average", options="{}") for s, v in (("", 2.0), ("code", 1.9))]
    (table,) = tables_of(rows)
    equal = Choice({"code": 0.5, "html": 0.5}, 1.85, 1.83, 1.87)
    better = Choice({"code": 0.7, "html": 0.3}, 1.8, 1.79, 1.81)
    verdict = decide(rows, [Predictions(table, {2: equal}, (better,))])
    assert (verdict.kind, verdict.chosen.value) == ("merge", 1.8)
    (asked,) = verdict.to_measure.merges
    assert (asked.merge.equal, asked.value) == (True, 1.85)
    assert verdict.to_measure.gain == pytest.approx(0.05, abs=1e-4)
    assert decide(rows, [Predictions(table, {}, (better,))]).to_measure is None


def test_weights_that_were_asked_for_are_written_where_they_pay():
    verdict = decide([row("", 1.8), row("code", 1.7, method="average", options="{}")])
    better, worse = (weighted(value, code=0.7, html=0.3) for value in (1.65, 1.75))
    assert merge_to_write(verdict, anyway=False, wanted=better) is better
    assert merge_to_write(verdict, anyway=False, wanted=worse) is None
    assert merge_to_write(verdict, anyway=True, wanted=worse) is worse
    # Nobody can measure them by name: there is no command that would.
    assert MeasureCommand(Path("run/m.csv"))([better]) == ""


@pytest.mark.parametrize(
    ("left", "partly", "question"),
    [
        ((), False, []),
        ((), True, []),
        (("geometry.json",), False, []),  # of no run: it says nothing of one
        (("run.json", "geometry.json"), False, ["--for", "select"]),
        (
            ("run.json", "geometry.json"),
            True,
            ["--for", "select", "--tokens", "where-needed"],
        ),
    ],
)
def test_the_command_that_measures_more_asks_what_the_run_asked(left, partly, question, tmp_path):
    for name in left:
        (tmp_path / name).write_text('{"texts": {}}')
    open_question = decide([row("", 1.6), row("a", 1.5), row("b", 1.55)]).expert
    command = MeasureCommand(tmp_path / "m.csv", "pool.yml", partly)([open_question])
    folder = str(tmp_path) if "run.json" in left else "RUN_DIR"
    start = ["mergeplan", "calibrate", "pool.yml", "-o", folder, *question]
    words = shlex.split(command)
    assert words[: len(start)] == start
    assert words[len(start)] == "--method"


def test_higher_is_better_where_the_metric_says_so():
    more = {"metric": "acc", "higher": True, "domain": ""}
    rows = [row("", 0.4, **more), row("code", 0.5, **more), row("code+html", 0.6, **more)]
    verdict = decide(rows)
    assert (verdict.chosen.merge.k, verdict.gains[0].value) == (2, pytest.approx(0.2))
    assert verdict.gains[0].chance is None
    assert "no chance on items of this kind is told" in verdict.summary()
    assert "(90 %)" not in verdict.summary()


@pytest.mark.parametrize("told", [{"n_items": 500}, {"value_se": 0.0223}])
def test_a_benchmark_of_few_items_has_a_chance_by_its_own_items(told):
    more = {"metric": "arc", "higher": True, "domain": "", **told}
    rows = [row("", 0.442, **more), row("code", 0.43, **more), row("code+html", 0.468, **more)]
    verdict = decide(rows)
    gain = verdict.gains[0]
    # Two shares of 500 items, taken for independent: the widest that their difference can be.
    error = np.hypot(0.0223, 0.0222)
    assert (gain.value, gain.unpaired) == (pytest.approx(0.026), True)
    around = 1.645 * error
    assert (gain.low, gain.high) == pytest.approx((0.026 - around, 0.026 + around), abs=3e-4)
    assert gain.chance == pytest.approx(0.5 * erfc(-0.026 / error / sqrt(2)), abs=2e-3)
    said = f"on items of this kind {gain.low:+.4f} to {gain.high:+.4f} (90 %), better with a chance"
    assert f"{said} of 80 %" in verdict.summary()
    assert "as if no two merges had an item in common" in verdict.summary()


def test_the_best_measured_share_is_drawn_towards_what_the_others_say_of_it(tmp_path):
    """Of equal merges the highest of many shares is the highest by chance."""
    rng = np.random.default_rng(0)
    more = {"metric": "arc", "higher": True, "domain": "", "n_items": 200}
    subsets = [s for k in (1, 2, 3, 4) for s in combinations("abcd", k)]
    rows = [row("+".join(s), rng.binomial(200, 0.5) / 200, **more) for s in subsets]
    found = verdict_of(table(tmp_path, rows)).chosen
    assert found.here > 0.5
    assert found.value < found.here - 0.02
    assert found.low < 0.5 < found.high
    exact = [replace(one, n_items=None, value_se=0.0) for one in rows]
    found = verdict_of(table(tmp_path, exact)).chosen
    assert (found.here, found.low, found.high) == (None, found.value, found.value)
    exact[0] = replace(exact[0], value_se=None)
    assert verdict_of(table(tmp_path, exact)).chosen.here is None


def test_a_law_alone_gives_a_number_and_says_so(tmp_path):
    rows = [row("", 2.0)] + [
        Measurement(2, k, 1.5 + 0.3 / k, pool_size=6, n_params=80592.0, **TASK)
        for k in (1, 2, 4, 6)
    ]
    law = fit(table(tmp_path, rows))
    save_law(law, tmp_path / "law.json")
    for source in ("law.json", "measurements.csv"):
        verdict = verdict_of(tmp_path / source)
        assert (verdict.kind, verdict.chosen) == ("k", None)
        assert f"merge {verdict.k} of 6 experts" in verdict.headline()
        assert "a number of experts" in verdict.summary()
    save_law(fit(table(tmp_path, [row("", 1.4), *rows[1:]])), tmp_path / "law.json")
    assert verdict_of(tmp_path / "law.json").kind == "base"
    assert verdict_of(tmp_path / "law.json").fails


def run_folder(tmp_path, losses, n_documents):
    """A table, and beside it the run that it is of: losses by merge and domain, of documents."""
    rng = np.random.default_rng(0)
    shared = {d: rng.normal(0, 0.3, n_documents) for d in ("code", "html")}
    rows, lines = [], []
    for names, by_domain in losses.items():
        subset = tuple(names.split("+")) if names else ()
        merge = SubsetMerge(
            0, 80592.0, *(("task_arithmetic", '{"lambda": 0.5}', subset) if subset else ("base",))
        )
        scores = {}
        for domain, mean in by_domain.items():
            own = rng.normal(0, 0.02, n_documents)
            nll = 100 * (mean + shared[domain] - shared[domain].mean() + own - own.mean())
            number = np.arange(n_documents)
            scores[domain] = DomainScores(number + 1, np.full(n_documents, 100), nll)
        lines.append(scores_line(MeasuredMerge(merge, Scores(scores), (0.5, 1.5))))
        for domain, mean in {**by_domain, "macro": sum(by_domain.values()) / 2}.items():
            rows.append(row(names, mean, domain, seed="0" if names else "", data_hash="0" * 16))
    (tmp_path / "scores.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "run.json").write_text(json.dumps({"texts": {"the text of size 1": "0" * 16}}))
    return table(tmp_path, rows)


LOSSES = {
    "": {"code": 2.0, "html": 2.0},
    "code": {"code": 1.6, "html": 2.2},
    "html": {"code": 2.1, "html": 1.7},
    "code+html": {"code": 1.8, "html": 2.02},
}


@pytest.mark.parametrize("n_documents", [2, 40])
def test_gains_and_harms_are_paired_by_documents_where_there_are_enough(tmp_path, n_documents):
    verdict = verdict_of(run_folder(tmp_path, LOSSES, n_documents))
    assert verdict.chosen.merge.subset == ("code",) or verdict.chosen.value == 1.9
    gain = verdict.gains[0]
    if n_documents == 2:
        assert (gain.low, gain.chance) == (None, None)
        assert "has 2 documents" in verdict.summary()
        assert "%" not in verdict.summary()
    else:
        # Documents move alike: unpaired, the interval would be ten times as wide.
        assert 0 < gain.high - gain.low < 0.03
        assert gain.low < gain.value < gain.high
        assert gain.chance > 0.99
    harms = {(harm.domain, harm.than.split()[-1]): harm.value for harm in verdict.harms}
    assert harms["html", "base"] == pytest.approx(verdict.chosen.values["html"] - 2.0)
    assert all(harm.value > 0 for harm in verdict.harms)


def test_scores_of_other_texts_are_refused(tmp_path):
    path = run_folder(tmp_path, LOSSES, 6)
    (tmp_path / "run.json").write_text(json.dumps({"texts": {"the text of size 1": "1" * 16}}))
    with pytest.raises(InputError, match="column `data_hash`"):
        verdict_of(path)


def test_a_lambda_is_named_only_where_there_is_one():
    assert lambda_to_try([], 1.0, 1.0) is None


def test_a_complete_table_is_not_predicted(tmp_path):
    whole = quadratic(EXPERTS, np.array([-0.1, -0.09, -0.02, 0.2]))
    rows, _ = read_rows(table(tmp_path, whole))
    assert predictions(rows, None).found == ()
    assert len(predictions(rows[:-1], None).found) == 1


def test_a_verdict_on_one_base_is_held_against_experts_of_that_base_alone(tmp_path):
    """The own expert of a domain was taken of either base, and the two have no tokens in common."""
    run_folder(tmp_path, LOSSES, 8)
    text = (tmp_path / "measurements.csv").read_text()
    scores = (tmp_path / "scores.jsonl").read_text()
    head, *rows = text.splitlines(keepends=True)
    larger = [row.replace("80592", "269120").replace("0" * 16, "1" * 16) for row in rows]
    (tmp_path / "measurements.csv").write_text(head + "".join(rows + larger))
    more = scores.replace("80592.0", "269120.0").replace('"size": 0', '"size": 1')
    (tmp_path / "scores.jsonl").write_text(scores + more)
    texts = {"the text of size 1": "0" * 16, "the text of size 2": "1" * 16}
    (tmp_path / "run.json").write_text(json.dumps({"texts": texts}))
    verdict = verdict_of(tmp_path / "measurements.csv")
    assert verdict.base.merge.n_params == verdict.chosen.merge.n_params
    assert verdict.harms
    assert all(harm.low is not None for harm in verdict.harms)
