"""The report page without a browser: its numbers, its texts, and what bad input gets."""

import csv
import itertools
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

import mergeplan
from mergeplan.errors import InputError, MergeplanError, MissingInputError
from mergeplan.reporting.core import core_data
from mergeplan.reporting.in_run import RunPage
from mergeplan.reporting.panels import experts, history, law, options, trust, verdict
from mergeplan.reporting.reduced import MOST_ROWS, reduced
from mergeplan.reporting.source import Source, open_source
from mergeplan.system.writing import ExistsError
from tests.support.commands import cli
from tests.support.reports import data_of, run_of
from tests.support.settings import DATA

DEMO = Path(mergeplan.__file__).parent / "demo" / "pool"
HOSTILE = ("</script><img src=x onerror=alert(1)>", "<b onmouseover=alert(2)>", "=1&copy;", "a'\"b")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some merges of the demo's pool: the base, singles, all, and every twelfth of the others."""
    path = tmp_path_factory.mktemp("few") / "few.csv"
    lines = (DEMO / "measurements.csv").read_text().splitlines()
    head, rows = lines[0], list(csv.DictReader(lines))
    chosen = [
        line
        for number, (line, row) in enumerate(zip(lines[1:], rows, strict=True))
        if row["k"] in ("0", "1", "9") or number % 12 == 0
    ]
    path.write_text("\n".join([head, *chosen]) + "\n")
    return path


@pytest.fixture(scope="module")
def page(few: Path) -> Path:
    out = few.parent / "report.html"
    assert cli("report", few, "-o", out, "--pool", DEMO / "pool.yml").returncode == 0
    return out


def test_its_numbers_are_those_of_the_commands(few: Path, page: Path) -> None:
    run = run_of(page)
    [first, *_] = mergeplan.select(few)
    labels = [(one["method"], one["n_params"]) for one in run["groups"]]
    group = labels.index((first.table.method, first.table.n_params))
    chosen = run["panels"]["subsets"]["choices"][str(group)]
    assert chosen["best"]["value"] == pytest.approx(first.best.value, abs=1e-6)
    for one, own in zip(first.sizes, chosen["sizes"], strict=True):
        assert own["mean"] == pytest.approx(one.mean, abs=1e-6)
    for fit in mergeplan.fit(few).fits:
        place = labels.index((fit.series.method, fit.series.n_params))
        curve = run["panels"]["law"]["curves"][f"{place}:0"]
        for k, (mean, low) in enumerate(zip(curve["mean"], curve["low"], strict=True), 1):
            assert (mean, low) == pytest.approx((fit.predict(k).loss, fit.predict(k).low), abs=1e-6)
        asked = curve["targets"][40]
        assert asked["k"] == fit.solve(asked["value"]).k
    found = mergeplan.verdict_of(few)
    light = next(one for one in run["panels"]["verdict"]["lights"] if "chosen" in one["role"])
    assert light["value"] == pytest.approx(found.chosen.value, abs=1e-6)


def test_no_path_of_the_machine_is_on_it(few: Path, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert str(few.parent) not in text
    assert str(DEMO) not in text
    yaml = run_of(page)["panels"]["verdict"]["yaml"]
    assert "base_model: base" in yaml
    config = run_of(page)["panels"]["subsets"]["pool"]["groups"]
    assert all(own["config"]["base_model"] == "base" for own in config.values())


def test_a_run_whose_geometry_is_of_another_pool_has_no_page(tmp_path: Path) -> None:
    run = Path(shutil.copytree(DATA / "run_5_experts", tmp_path / "run"))
    geometry = run / "geometry.json"
    geometry.write_text(geometry.read_text().replace('"pool_hash": "', '"pool_hash": "0'))
    with pytest.raises(InputError, match="geometry.json` has `pool_hash`"):
        mergeplan.report(run, tmp_path / "out.html")


def test_it_is_small_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    body = re.sub(r"<(script|style|pre)[^>]*>.*?</\1>", "", text, flags=re.S)
    assert not re.search(r"(src|href)=", body)
    assert not re.search(r"\son\w+=", body)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    table = tmp_path / "<i>table.csv"
    table.write_text(_table(HOSTILE))
    out = tmp_path / "out.html"
    mergeplan.report(table, out)
    text = out.read_text(encoding="utf-8")
    assert not any(name in text for name in HOSTILE[:2])
    assert "<title>&lt;i&gt;table.csv - mergeplan</title>" in text
    assert "<i>table" not in text
    assert sorted(run_of(out)["experts"]) == sorted(HOSTILE)


def _table(names: tuple[str, ...]) -> str:
    rows = [["method", "n_params", "k", "subset", "domain", "loss_nats"]]
    rows.append(["average", "1000000", "0", "", names[0], "2.0"])
    for number, name in enumerate(names):
        rows.append(["average", "1000000", "1", name, names[0], str(2 + 0.1 * number)])
    rows.append(["average", "1000000", str(len(names)), "+".join(names), names[0], "1.8"])
    return "\n".join(",".join('"' + c.replace('"', '""') + '"' for c in row) for row in rows)


def test_three_rows_without_names_have_a_curve(tmp_path: Path) -> None:
    table = tmp_path / "three.csv"
    table.write_text("k,loss_nats\n1,2.0\n2,1.9\n4,1.85\n")
    out = tmp_path / "out.html"
    mergeplan.report(table, out)
    run = run_of(out)
    [curve] = run["panels"]["law"]["curves"].values()
    assert len(curve["mean"]) == 4
    assert run["panels"]["subsets"]["missing"] == "no row names its experts"


def test_several_runs_are_on_one_page(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    mergeplan.report([few, DATA / "measured_llama3b_16_experts.csv"], out)
    assert [run["name"] for run in data_of(out)["runs"]] == [
        "few.csv",
        "measured_llama3b_16_experts.csv",
    ]


def test_a_table_of_domains_alone_is_shown_by_their_mean(tmp_path: Path) -> None:
    lines = (DATA / "run_5_experts" / "measurements.csv").read_text().splitlines()
    table, out = tmp_path / "table.csv", tmp_path / "out.html"
    table.write_text("\n".join(line for line in lines if ",macro," not in line) + "\n")
    mergeplan.report(table, out)
    run = run_of(out)
    assert run["targets"][0]["label"] == "mean of all domains"
    place = [one["label"] for one in run["groups"]].index("average")
    law = run["panels"]["subsets"]["laws"][f"{place}:0"]
    [own] = [one for one in mergeplan.select(table) if one.table.method == "average"]
    assert law["constant"] == pytest.approx(own.law.constant, abs=1e-6)
    whole = next(one for one in run["merges"] if one["k"] == 5 and one["g"] == place)
    assert whole["v"][0] == pytest.approx(sum(whole["v"][1:]) / 3, abs=1e-9)


def test_a_table_of_metrics_is_shown_by_its_first(tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    mergeplan.report(DATA / "downstream_8b_5_experts.csv", out)
    run = run_of(out)
    assert run["targets"][0]["metric"] == "math_500"
    assert run["targets"][0]["higher"]
    assert {one["metric"] for one in run["targets"]} >= {"gsm8k", "arc", "mmlu"}


def test_what_is_no_run_is_refused(tmp_path: Path, few: Path) -> None:
    out = tmp_path / "out.html"
    with pytest.raises(MissingInputError, match="is no run"):
        mergeplan.report(tmp_path, out)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MissingInputError, match="not finished: 0 merges are measured"):
        mergeplan.report(tmp_path, out)
    with pytest.raises(MissingInputError, match="no such file or folder"):
        mergeplan.report(tmp_path / "nothing", out)
    bases = tmp_path / "bases.csv"
    bases.write_text("k,loss_nats\n0,2.0\n")
    with pytest.raises(InputError, match="rows of bases only"):
        mergeplan.report(bases, out)
    with pytest.raises(InputError, match="no metric `nosuch`"):
        mergeplan.report(few, out, metric="nosuch")
    out.write_text("mine")
    with pytest.raises(ExistsError):
        mergeplan.report(few, out)
    assert out.read_text() == "mine"


def test_the_form_of_a_law_of_many_rows_is_within_five_per_cent(monkeypatch) -> None:
    monkeypatch.setattr("mergeplan.reporting.reduced.MOST_MADE", 0)
    [first, *_] = mergeplan.select(DATA / "select_270k.csv")
    law = first.law
    assert len(law.values) > MOST_ROWS
    form = reduced(law)
    assert form["kind"] == "terms"
    weights = np.random.default_rng(1).dirichlet(np.ones(9), 50)
    weights[::2] *= np.linspace(0, 1.5, 25)[:, None]  # of any sum
    from base64 import b64decode

    from mergeplan.reporting.reduced import terms
    from mergeplan.subset_law.weightings import seen

    features = terms(seen(weights, law.shrinkage))
    beta = np.frombuffer(b64decode(form["coefficients"]), "<f8")
    roots = np.frombuffer(b64decode(form["roots"]), "<f4").reshape(-1, form["rank"])
    assert features @ beta == pytest.approx(law.predict(weights), abs=1e-6)
    variance = ((features @ roots) ** 2).sum(1) + form["misfit"]
    assert law.scale * np.sqrt(variance) == pytest.approx(law.deviations(weights), rel=0.05)


def test_a_difference_from_the_base_has_no_interval_from_few_documents(few: Path) -> None:
    assert all("e" not in one for one in core_data(open_source(few))["merges"])


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "-o"),
        ("select", "-o"),
        ("suggest", "--pool", DEMO / "pool.yml", "-o"),
        ("plot", "-o"),
    ],
)
def test_nothing_writes_over_what_it_reads(few: Path, tmp_path: Path, words) -> None:
    own = tmp_path / ("few.svg" if words[0] == "plot" else "few.csv")
    own.write_bytes(few.read_bytes())
    command, *rest = words
    rest = ["--pool", DEMO / "pool.yml", *rest] if command == "select" else rest
    done = cli(command, own, *rest, own, "--overwrite")
    assert done.returncode == 1
    assert "is what is read" in done.stderr
    assert own.read_bytes() == few.read_bytes()


def test_a_page_replaces_no_file_of_a_run_but_its_own(tmp_path: Path, few: Path) -> None:
    page = tmp_path / "few.html"
    page.write_bytes(few.read_bytes())
    for out in (page, tmp_path / "page.pdf"):
        with pytest.raises(MergeplanError, match=r"what is read|a page is HTML"):
            mergeplan.report(page, out, overwrite=True)
    assert page.read_bytes() == few.read_bytes()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A recorded run of five experts."""
    return Path(shutil.copytree(DATA / "run_5_experts", tmp_path / "run"))


def test_of_few_documents_nothing_is_said_of_other_texts(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors() -> set[float | None]:
        panel = law.panel(open_source(run))
        return {one["text_error"] for one in panel["curves"].values()}

    assert None not in errors()
    monkeypatch.setattr("mergeplan.evaluation.resampling.LEAST_GROUPS", 1000)
    assert errors() == {None}


def test_whom_it_harms_is_said_as_suggest_says_it(run: Path) -> None:
    said = mergeplan.verdict_of(run / "measurements.csv").summary()
    harms = verdict.panel(open_source(run))["harms"]
    assert harms
    assert all(f"  {line}\n" in said for line in harms)


def test_a_run_writes_its_page_after_rounds_while_that_is_quick(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Folder:
        path, identity = run, SimpleNamespace(metric="")
        placed: ClassVar[list[str]] = []

        def at(self, name: str) -> Path:
            return run / name

        def place(self, name: str, text: str) -> Path:
            self.placed.append(name)
            return run / name

    folder, now = Folder(), [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow_text(sources: list[Source]) -> tuple[str, tuple[str, ...]]:
        assert all(one.brief for one in sources)
        now[0] += 1.0
        return "", ()

    monkeypatch.setattr("mergeplan.reporting.in_run.report_text", slow_text)
    page = RunPage(DEMO / "pool.yml")
    for after, count in ((1.0, 1), (9.0, 1), (2.0, 2)):
        now[0] += after
        page.after_round(folder)
        assert folder.placed == ["report.html"] * count


def test_differences_from_the_base_have_the_commands_intervals(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = mergeplan.verdict_of(run / "measurements.csv")
    [gain] = [one for one in found.gains if one.over == "the base"]
    core = core_data(open_source(run))
    [own] = [
        one
        for one in core["merges"]
        if one["v"][0] == pytest.approx(found.chosen.value, abs=1e-9) and one["k"]
    ]
    half = own["e"][0]
    assert -own["d"][0] == pytest.approx(gain.value, abs=1e-6)
    assert half == pytest.approx((gain.high - gain.low) / 2, rel=0.05)  # that one is of draws
    monkeypatch.setattr("mergeplan.evaluation.resampling.LEAST_GROUPS", 1000)
    assert all("e" not in one for one in core_data(open_source(run))["merges"])


def test_a_fault_is_told_without_the_folder_it_lies_in(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(table: Path, **_: object) -> None:
        raise InputError(f"`{table}` is at fault")

    monkeypatch.setattr("mergeplan.reporting.source.select", fault)
    out = tmp_path / "out.html"
    mergeplan.report(few, out)
    assert run_of(out)["panels"]["subsets"]["missing"] == "`few.csv` is at fault"
    assert str(few.parent) not in out.read_text(encoding="utf-8")


def test_history_scans_and_winners_hold_what_was_measured(run: Path) -> None:
    source = open_source(run)
    steps = history.panel(source)["steps"]
    best = np.minimum.accumulate([one["value"] if one["k"] else np.inf for one in steps])
    assert [one["best"] or np.inf for one in steps] == best.tolist()
    assert all(a["tokens"] <= b["tokens"] for a, b in itertools.pairwise(steps))

    [scan] = options.panel(source)["scans"]
    measured = {
        json.loads(row.options)["lambda"]: row.loss_nats
        for row in source.rows
        if row.method == "task_arithmetic" and row.k == 5 and row.target == source.main.name
    }
    assert {one["x"]: one["values"][0] for one in scan["points"]} == measured

    winners = trust.panel(source)["winners"]["merges"]
    assert max(winners, key=lambda one: one["share"]) == min(winners, key=lambda one: one["value"])
    assert sum(one["share"] for one in winners) == pytest.approx(1)


def test_a_pair_is_what_it_gives_beyond_its_experts(run: Path) -> None:
    for one in experts.panel(open_source(run))["groups"].values():
        assert np.array(one["pairs"]).sum(1) == pytest.approx(0, abs=1e-9)
        assert np.abs(one["pairs"]).max() > 1e-4
