"""`mergeplan calibrate` ends with one verdict: the best that is known, held against other text."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.support.commands import cli
from tests.support.pools import write_pool
from tests.support.settings import DEMO_POOL, EVAL

pytestmark = pytest.mark.timeout(300)
NINE = ("cheader", "html", "js", "json", "mande", "manfr", "md", "perl", "python")
HALF = {"task_arithmetic": {"lambda": 0.5}}


def calibrate(pool: Path, run: Path, *more: object):
    return cli("calibrate", pool, "-o", run, "-q", "-j", "1", *more)


def macro_rows(run: Path) -> list[dict[str, str]]:
    with (run / "measurements.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["domain"] == "macro"]


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """All nine experts and all texts, 1,500 tokens a domain; the folder, and what was printed."""
    folder = tmp_path_factory.mktemp("nine")
    experts = {name: str(DEMO_POOL / name) for name in NINE}
    sizes = [{"base": str(DEMO_POOL / "base"), "experts": experts}]
    data = {name: str(EVAL / f"{name}.jsonl") for name in NINE}
    pool = write_pool(folder, sizes=sizes, data=data, methods=HALF)
    done = calibrate(pool, folder / "run", "--max-tokens", 1500, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_one_verdict_names_the_best_known_merge_and_writes_it(nine):
    folder, found = nine
    verdict, run = found["verdict"], folder / "run"
    chosen = verdict["chosen"]
    values = {(row["method"], row["options"], row["subset"]): row for row in macro_rows(run)}
    best = min(float(row["loss_nats"]) for row in values.values())
    assert (verdict["kind"], chosen["measured"]) == ("merge", True)
    assert chosen["value"] == pytest.approx(best, abs=1e-8)
    assert chosen["value"] < verdict["base"]["value"]
    config = yaml.safe_load((run / "merge.yml").read_text())
    assert sorted(Path(one["model"]).name for one in config["models"]) == chosen["subset"]
    assert config["parameters"]["lambda"] == chosen["options"]["lambda"]
    again = calibrate(folder / "pool.yml", run, "--max-tokens", 1500)
    assert again.stdout.count("verdict for") == 1
    assert "at random" not in again.stdout + (run / "merge.yml").read_text()
    assert found["verdict"]["headline"] in again.stdout
    # Kept, and not scored again.
    assert "merges on the check half" not in again.stderr


def test_the_gain_that_was_promised_holds_on_text_that_was_held_back(nine):
    _, found = nine
    promised = {gain["over"]: gain for gain in found["verdict"]["gains"]}
    held = found["held_back"]
    assert [one["over"] for one in held["gains"]] == list(promised)
    for one in held["gains"]:
        gain = promised[one["over"]]
        assert one["promised"] == gain["value"] > 0
        assert gain["chance"] > 0.9
        # Two texts of this kind: the difference of their gains has both errors.
        own = (gain["high"] - gain["low"]) / 2
        both = (own**2 + (1.645 * one["gain"]["se"]) ** 2) ** 0.5
        assert abs(one["gain"]["loss_nats"] - gain["value"]) < both
        assert one["gain"]["loss_nats"] > 0
    # The other half: no document of the half that was selected by.
    assert held["loss"]["n_documents"] > 50


def test_domains_that_become_worse_are_named_with_intervals(nine):
    folder, found = nine
    with (folder / "run" / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = found["verdict"]["chosen"]

    def losses(subset, options):
        return {
            row["domain"]: float(row["loss_nats"])
            for row in rows
            if row["subset"] == subset and row["options"] in (options, "")
        }

    base = losses("", "{}")
    own = losses("+".join(chosen["subset"]), json.dumps(chosen["options"]))
    worse = {name for name in NINE if own[name] > base[name]}
    harms = found["verdict"]["harms"]
    assert {one["domain"] for one in harms if one["than"] == "the base"} == worse
    experts = {one["domain"] for one in harms if one["than"] != "the base"}
    assert experts == {name for name in NINE if own[name] > losses(name, HALF_OPTIONS)[name]}
    assert all(one["low"] < one["value"] < one["high"] for one in harms)


HALF_OPTIONS = '{"lambda": 0.5}'


def test_of_two_documents_a_domain_a_chance_is_told_on_this_text_alone(tmp_path):
    pool = write_pool(tmp_path, methods=HALF)
    for file in (tmp_path / "texts").glob("*.jsonl"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    done = calibrate(pool, tmp_path / "run", "--for", "select", "--json")
    verdict = json.loads(done.stdout)["verdict"]
    assert all(gain["chance"] is None and gain["low"] is None for gain in verdict["gains"])
    words = calibrate(pool, tmp_path / "run", "--for", "select").stdout
    assert "has 2 documents" in words
    assert words.count("with a chance") == words.count("on this text the best of all that are")
    assert "no chance on texts of this kind is told: `" in words
    confidence = json.loads(done.stdout)["selections"][0]["confidence"]
    assert 0 <= confidence["on_this_text"]["chance"] <= 1
    assert confidence["on_texts_of_this_kind"]["chance"] is None
    assert json.loads(done.stdout)["held_back"] is None


def test_named_merges_are_measured_beside_the_rounds(tmp_path):
    pool, run = write_pool(tmp_path, methods=HALF), tmp_path / "run"
    first = calibrate(pool, run, "--k", "1,2")
    assert first.returncode in (0, 4), first.stderr
    before = {(row["subset"], row["options"]) for row in macro_rows(run)}
    named = ("html", "js", "md")
    assert ("+".join(named), HALF_OPTIONS) not in before
    done = calibrate(pool, run, "--k", "1,2", "--also", "md+html+js")
    assert done.returncode in (0, 4), done.stderr
    after = {(row["subset"], row["options"]) for row in macro_rows(run)}
    assert after - before == {("+".join(named), HALF_OPTIONS)}
    for wrong, message in (("jss+md", "no expert `jss`"), ("js+js", "different experts")):
        refused = calibrate(pool, run, "--k", "1,2", "--also", wrong)
        assert refused.returncode == 1
        assert message in refused.stderr


def test_where_merging_does_not_pay_no_yaml_is_left(tmp_path):
    # Five experts of code and markup, and texts in two other languages.
    foreign = {name: f"texts/{name}.jsonl" for name in ("mande", "manfr")}
    pool, run = write_pool(tmp_path, methods={"average": {}}, data=foreign), tmp_path / "run"
    for name in foreign:
        lines = (EVAL / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)[:6]
        (tmp_path / "texts" / f"{name}.jsonl").write_text("".join(lines))
    done = calibrate(pool, run, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 4, found["verdict"]["headline"]
    assert found["verdict"]["kind"] == "base"
    assert found["config"] is None
    assert not (run / "merge.yml").exists()
    assert "lambda" in found["verdict"]["headline"]
    anyway = calibrate(pool, run, "--anyway")
    assert anyway.returncode == 4
    assert (run / "merge.yml").exists()
    assert calibrate(pool, run).returncode == 4
    assert not (run / "merge.yml").exists()
    (run / "merge.yml").write_text("mine")
    assert calibrate(pool, run).returncode == 4
    assert (run / "merge.yml").read_text() == "mine"


def test_the_selection_half_is_measured_by_default_where_there_is_enough(tmp_path):
    pool, run = write_pool(tmp_path, methods=HALF), tmp_path / "run"
    for domain in ("html", "python"):
        text = (EVAL / f"{domain}.jsonl").read_text("utf-8")
        (tmp_path / "texts" / f"{domain}.jsonl").write_text(text)
    few = ("--budget", "8 merges", "--max-tokens", 1000)
    assert calibrate(pool, run, *few).returncode in (0, 4)
    explicit = calibrate(pool, tmp_path / "other", *few, "--half", "selection")
    assert explicit.returncode in (0, 4)
    assert {row["data_hash"] for row in macro_rows(run)} == {
        row["data_hash"] for row in macro_rows(tmp_path / "other")
    }
    # Of which too few are left, all are scored: one a domain says nothing of other texts.
    cut = ("--budget", "3 merges", "--max-tokens", 100)
    assert calibrate(pool, tmp_path / "cut", *cut).returncode in (0, 1, 4)
    assert calibrate(pool, tmp_path / "cut", *cut, "--half", "all").returncode in (0, 1, 4)
    # A run that was measured on all documents goes on with them, unasked.
    whole = tmp_path / "whole"
    assert calibrate(pool, whole, *few, "--half", "all").returncode in (0, 4)
    assert calibrate(pool, whole, *few).returncode in (0, 4)
    assert calibrate(pool, whole, *few, "--half", "check").returncode == 1
