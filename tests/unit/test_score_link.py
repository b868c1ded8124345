"""Whether the loss speaks for a score, on tables whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from mergeplan.law.diagnose import all_signs
from mergeplan.law.fit import fit
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.measurements.rows import Measurement
from mergeplan.selection.score_link import score_links
from mergeplan.selection.select import select
from mergeplan.selection.selection import Wish
from mergeplan.selection.table import tables_of
from tests.support.settings import DATA

NAMES = "abcde"
SUBSETS = [s for k in (1, 2, 3) for s in combinations(NAMES, k)]


def table(scores, tasks=("quiz",), n_items=400, losses=None):
    """Losses that rise with a member's place, and the accuracy beside them."""
    losses = losses or {s: 2 + sum(map(NAMES.index, s)) / len(s) / 10 for s in SUBSETS}
    rows = []
    for subset in SUBSETS:
        more = {"k": len(subset), "subset": subset, "method": "average"}
        rows.append(Measurement(2, loss_nats=losses[subset], **more))
        for task in tasks:
            score = scores(losses[subset], task)
            own = {"metric": "acc", "higher": True, "domain": task, "n_items": n_items}
            rows.append(Measurement(3, loss_nats=score, **own, **more))
    return rows


def test_a_score_that_falls_with_the_loss_is_spoken_for():
    [link] = score_links(tables_of(table(lambda loss, _: 3 - loss))[0])
    assert (link.loss, link.score, link.n) == ("loss", "acc:quiz", len(SUBSETS))
    assert link.rank == pytest.approx(1)
    assert link.by_loss == link.by_score == ("a",)
    assert (link.cost, link.cost_error > 0) == (0, True)


def test_a_score_of_chance_has_an_interval_around_none_and_a_cost():
    noise = dict(zip(SUBSETS, np.random.default_rng(1).random(len(SUBSETS)), strict=True))
    by_loss = {2 + n / 100: value for n, value in enumerate(noise.values())}
    losses = dict(zip(SUBSETS, by_loss, strict=True))
    [link] = score_links(tables_of(table(lambda loss, _: by_loss[loss], losses=losses))[0])
    expected = spearmanr(list(by_loss), [-value for value in by_loss.values()]).statistic
    assert link.rank == pytest.approx(expected)
    assert link.low < 0 < link.high
    assert link.by_loss == SUBSETS[0]
    assert link.cost == pytest.approx(max(noise.values()) - noise[SUBSETS[0]])
    assert "the first costs at most" in link.summary()


def test_items_say_how_much_of_the_score_is_noise():
    """Accuracies that differ by their binomial error alone."""
    rng = np.random.default_rng(0)
    links = score_links(tables_of(table(lambda *_: rng.binomial(100, 0.5) / 100, n_items=100))[0])
    assert 0.5 < links[0].noise < 2


def test_several_tasks_have_a_mean_before_them():
    links = score_links(tables_of(table(lambda loss, t: (3 - loss) / len(t), ("one", "three")))[0])
    assert [link.score for link in links] == ["acc, mean of 2 tasks", "acc:one", "acc:three"]
    assert [link.main for link in links] == [True, False, False]
    assert links[0].cost_error is not None
    assert links[0].noise < links[1].noise


def test_means_that_differ_in_the_last_digits_alone_share_their_rank():
    """(0.1 + 0.2) + 0.3 is not (0.2 + 0.3) + 0.1."""
    losses = {s: 2 + n / 100 for n, s in enumerate(SUBSETS)}
    number = {loss: n for n, loss in enumerate(losses.values())}
    tasks = ("one", "three", "two")

    def score(loss, task):
        turned = (tasks.index(task) + number[loss]) % 3
        return (0.1, 0.2, 0.3)[turned] + (number[loss] % 5 == 0) / 2

    link = score_links(tables_of(table(score, tasks, losses=losses))[0])[0]
    better = [-float(n % 5 == 0) for n in number.values()]
    assert link.rank == pytest.approx(spearmanr(list(number), better).statistic)


def test_the_macro_mean_of_a_metric_stands_for_its_tasks():
    links = score_links(tables_of(table(lambda loss, t: (3 - loss) / len(t), ("one", "macro")))[0])
    assert [(link.score, link.main) for link in links] == [("acc:macro", True), ("acc:one", False)]


@pytest.mark.parametrize("few", [0, 4])
def test_too_few_merges_with_both_have_no_link(few):
    rows = table(lambda loss, _: 3 - loss)
    scored = [row for row in rows if row.metric][:few]
    found = tables_of([*(row for row in rows if not row.metric), *scored])
    assert score_links(found[0]) == ()


def test_select_shows_it(tmp_path):
    lines = ["method,k,subset,loss_nats,metric,value,better,n_items,domain"]
    for row in table(lambda loss, _: 3 - loss):
        head = f"average,{row.k},{'+'.join(row.subset)}"
        own = f",acc,{row.loss_nats},higher,400,quiz" if row.metric else f"{row.loss_nats},,,,,"
        lines.append(f"{head},{own}")
    file = tmp_path / "m.csv"
    file.write_text("\n".join(lines) + "\n")
    said = select(file, wish=Wish("loss")).summary()
    assert "does the loss speak for the score?" in said
    assert "both choose a" in said


@pytest.mark.parametrize(("wish", "own"), [("acc:one,acc:two", "acc:"), ("loss", "loss")])
def test_an_expert_is_said_to_help_in_the_unit_that_decides(tmp_path, wish, own):
    """A loss may fall by more than any accuracy rises."""
    rows = table(lambda loss, t: (3 - loss) / 100 / len(t), ("one", "two"))
    file = tmp_path / "m.csv"
    file.write_text(table_text(rows, COLUMNS))
    (found,) = select(file, wish=Wish(wish))
    for expert in found.experts:
        assert expert.helps
        assert all(name.startswith(own) for name in expert.helps)


def test_the_loss_of_a_real_pool_speaks_for_its_next_bytes():
    """The figures of docs/evidence/select.md."""
    rows, _ = read_rows(DATA / "loss_and_scores_270k.csv")
    links = {link.score: link for link in score_links(tables_of(rows)[0])}
    found = {name: (round(one.rank, 2), round(one.cost, 4)) for name, one in links.items()}
    assert found == {"top1:macro": (0.95, 0.0019), "four:macro": (0.86, 0.0026)}


def test_the_loss_of_a_real_language_model_speaks_for_its_cloze_items():
    """The figures of docs/evidence/select.md; without scores of items, errors are per merge."""
    file = DATA / "loss_and_cloze_135m.csv"
    rows, _ = read_rows(file)
    link = score_links(tables_of(rows)[0])[0]
    assert (link.score, link.n) == ("acc, mean of 8 tasks", 29)
    assert [round(x, 2) for x in (link.rank, link.low, link.high)] == [0.65, 0.39, 0.81]
    assert (link.by_loss, link.by_score) == (("polish", "rust", "spanish"), ("polish",))
    assert round(link.cost, 4) == 0.0083
    assert link.noise > 1
    (found,) = select(file, metric="acc")
    assert found.best.subset == ("polish",)
    law = fit(file, metric="acc")
    assert any("no trend" in sign for sign in all_signs(law))
    assert law.predict(8).loss == pytest.approx(0.5979, abs=1e-4)
