"""Results in notebooks: HTML that is text, frames, and bars."""

import sys
import types
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import mergeplan
from mergeplan.display.summary import Summarized
from mergeplan.evaluation.evaluate import Evaluation
from mergeplan.evaluation.scores import DomainScores, Scores, TaskScore
from mergeplan.measurements.rows import Measurement, Measurements
from mergeplan.system.progress import shown_as_bar
from tests.support.settings import DEMO_POOL

EVIL = "</pre></table><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J"


class Found(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def law():
    return mergeplan.fit(DEMO_POOL / "measurements.csv")


@pytest.fixture(scope="module")
def results(law, few_measured, tmp_path_factory):
    pool = DEMO_POOL / "pool.yml"
    recommendation = mergeplan.suggest(law, 1.9055)
    selections = mergeplan.select(few_measured, method="average")
    return {
        "fit": (law, 2),
        "series": (law.fits[0], 9),
        "recommendation": (recommendation, 2),
        "chosen": (mergeplan.choose_merge(recommendation, pool), 6),
        "selections": (selections, 9),
        "selection": (selections[0], 9),
        "verdict": (mergeplan.verdict_of(few_measured), 4),
        "geometry": (mergeplan.similarity(pool)[0], 45),
        "inspection": (mergeplan.inspect([DEMO_POOL / "base", DEMO_POOL / "js"]), 2),
        "diff": (mergeplan.diff(DEMO_POOL / "base", DEMO_POOL / "js"), 27),
        "pool": (mergeplan.load_pool(pool), 9),
        "measurements": (mergeplan.load_measurements(few_measured), 94),
        "merges": (mergeplan.sample(pool, tmp_path_factory.mktemp("s")), 146),
    }


def test_every_result_has_a_frame_and_a_table(results):
    pandas = pytest.importorskip("pandas")
    for name, (result, n_rows) in results.items():
        records = result.records()
        assert len(records) == n_rows, name
        for record in records:
            assert all(
                value is None or isinstance(value, str | int | float) for value in record.values()
            ), (name, record)
        frame = result.to_frame()
        assert isinstance(frame, pandas.DataFrame)
        assert len(frame) == n_rows
        found = Found(result._repr_html_())
        assert found.count("tr") == 1 + min(n_rows, 20), name
        assert ("more rows: to_frame()" in found.text) == (n_rows > 20)
        first = result.summary().lstrip("\n").split("\n")[0]
        assert found.text.startswith(first) == (name != "fit")
    frame = results["selection"][0].to_frame()
    best = results["selection"][0].best
    assert frame.loc[frame.value.idxmin(), "subset"] == "+".join(best.subset)


def test_what_is_in_no_table_is_a_row_of_its_plain_values(tmp_path):
    config = {"merge_method": "passthrough", "models": [{"model": DEMO_POOL / "js"}]}
    report = mergeplan.merge(config, tmp_path / "out")
    [record] = report.records()
    assert record["out"] == str(tmp_path / "out")
    assert record["written_bytes"] == report.written_bytes
    assert "phases" not in record
    (tmp_path / "out" / "config.json").write_text("{}")
    [difference] = mergeplan.verify(tmp_path / "out").records()
    assert difference["file"] == "config.json"


def test_a_score_of_another_model_stands_beside_its_own():
    def scores(nll):
        lines, tokens = np.array([1, 2]), np.array([2, 2])
        return Scores({"code": DomainScores(lines, tokens, np.array(nll))})

    task = TaskScore("arc", "acc", 0.5, 0.1, "higher", 10)
    own, other = scores([2.0, 4.0]), scores([3.0, 3.0])
    worse = replace(task, value=0.25)
    found = Evaluation(own, other, (task,), "", (), against_tasks=(worse,))
    rows = found.records()
    assert [row["domain"] for row in rows] == ["code", "macro", "token-weighted", "arc"]
    assert (rows[0]["value"], rows[0]["difference"], rows[0]["n_tokens"]) == (1.5, 0.0, 4)
    assert (rows[-1]["metric"], rows[-1]["value"], rows[-1]["difference"]) == ("acc", 0.5, 0.25)
    assert "difference" not in Evaluation(own, None, (), "", ()).records()[0]
    assert own.records()[0]["loss_nats"] == 1.5


def test_names_from_strangers_are_text():
    rows = (Measurement(2, 1, 1.0, EVIL, domain=EVIL, subset=(EVIL,)),)
    found = Found(Measurements(rows, "")._repr_html_())
    allowed = {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"}
    assert {tag for tag, _ in found.tags} == allowed
    assert not any(attributes for _, attributes in found.tags)
    assert "<script>alert(1)</script>" in found.text
    assert "\\x1b[2J" in found.text.split("summary")[0]


def test_polars_stands_in_for_pandas_and_where_neither_is_the_error_says_what_to_do(
    law, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(mergeplan.InputError, match="pandas or polars") as caught:
        law.to_frame()
    assert "pip install pandas" in caught.value.hint
    polars = types.SimpleNamespace(DataFrame=lambda rows, infer_schema_length: list(rows))
    monkeypatch.setitem(sys.modules, "polars", polars)
    assert law.to_frame() == law.records()


@pytest.fixture
def bars(monkeypatch):
    """Bars that keep what they were told."""
    made = []

    class Bar:
        def __init__(self, **how):
            self.how, self.n, self.total, self.open = how, 0, None, False
            made.append(self)

        def __enter__(self):
            self.open = True
            return self

        def __exit__(self, *_):
            self.open = False

        def update(self, more):
            assert self.open
            self.n += more

    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    return made


def kernel(monkeypatch, **shell):
    ipython = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(**shell))
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def work(tmp_path, **how):
    """The functions that tell how far they are and need no torch."""
    config = {"merge_method": "passthrough", "models": [{"model": DEMO_POOL / "js"}]}
    out = tmp_path / "out"
    mergeplan.merge(config, out, mergeplan.MergeOptions(overwrite=True), **how)
    mergeplan.verify(out, **how)
    mergeplan.diff(DEMO_POOL / "js", out, **how)
    mergeplan.similarity(DEMO_POOL / "pool.yml", **how)


def test_a_bar_where_one_is_wanted_or_a_notebook_shows_it(bars, tmp_path, monkeypatch):
    work(tmp_path)
    kernel(monkeypatch)  # a shell in a terminal
    work(tmp_path)
    assert bars == []
    work(tmp_path, progress=True)
    assert len(bars) == 4
    for bar in bars:
        assert bar.how["unit"] == "B"
        assert not bar.open
    with shown_as_bar(True, "tokens") as tell:
        assert bars[-1].open
        for done, total in ((1, 10), (4, 12), (4, 12)):
            tell(done, total)
            assert (bars[-1].n, bars[-1].total) == (done, total)
    kernel(monkeypatch, kernel=object())
    work(tmp_path)
    assert len(bars) == 9
    work(tmp_path, progress=False)
    with shown_as_bar(print, "B") as tell:
        assert tell is print
    assert len(bars) == 9


def test_without_tqdm_a_notebook_does_without_and_who_asks_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    kernel(monkeypatch, kernel=object())
    work(tmp_path)
    with pytest.raises(mergeplan.InputError, match="tqdm"):
        mergeplan.verify(tmp_path / "out", progress=True)


def test_all_public_results_show_themselves():
    kinds = [getattr(mergeplan, name) for name in dir(mergeplan)]
    own = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Summarized)]
    assert len(own) >= 16
    assert {"Verdict", "Evaluation", "Calibration"} <= {kind.__name__ for kind in own}
