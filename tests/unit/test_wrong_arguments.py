"""Mistakes of a Python user: each is an error of ours that names the argument."""

import numpy as np
import pytest

import mergeplan as mp
from mergeplan.measurements.file import read_rows

CSV = mp.DEMO_POOL / "measurements.csv"
CONFIG = {"merge_method": "passthrough", "models": [{"model": mp.DEMO_POOL / "js"}]}
HOLDS_ITSELF: dict = {"merge_method": "linear"}
HOLDS_ITSELF["models"] = [HOLDS_ITSELF]


@pytest.fixture(scope="module")
def law():
    return mp.fit(CSV, method="average")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda law: law.predict(0), "`k`: expected a number from 1"),
        (lambda law: law.predict(float("nan")), "`k`"),
        (lambda law: law.predict("5"), "`k`: expected a number from 1 to 1e+09, found '5'"),
        (lambda law: law.predict(4, confidence=90), "`confidence`"),
        (lambda law: law.solve(10**400), "`target_loss`"),
        (lambda law: law.choose(method="avg"), "0 fits match"),
        (lambda law: mp.suggest(law, "1.9"), "`target_loss`: expected a number"),
        (lambda law: mp.suggest(law, 1.9, goal=mp.Goal()), "both given"),
        (lambda _: mp.Goal(epsilon=0), "`epsilon`"),
        (lambda _: mp.Goal(fraction=90), "`fraction`: expected a number from 1e-06 to 1, found 90"),
        (lambda _: mp.CostModel(train=-1), "`train`"),
        (lambda _: mp.Wish(max_experts=0), "`max_experts`"),
        (lambda _: mp.fit(None), "expected a path, found None"),
        (lambda _: mp.load_law(5), "expected a path, found 5"),
        (lambda _: mp.load_law("none.json"), "cannot open law `none.json`"),
        (lambda _: mp.load_measurements("none.csv"), "cannot open `none.csv`"),
        (lambda _: mp.select(CSV, geometry=mp.DEMO_POOL / "pool.yml"), "cannot read geometry"),
        (lambda _: mp.MergeOptions(threads=-1), "`threads`: expected a whole number from 1"),
        (lambda _: mp.MergeOptions(seed=-1), "`seed`"),
        (lambda _: mp.MergeOptions(max_shard_bytes="5GB"), "`max_shard_bytes`"),
        (lambda _: mp.MergeOptions(lora_merge_dtype="foo"), "`lora_merge_dtype`: expected one of"),
        (lambda _: mp.SampleOptions(labels="average"), "`labels`: expected several"),
        (lambda _: mp.SampleOptions(design="balancd"), "`design`: there is no `balancd`"),
        (lambda _: mp.CalibrateOptions(wish=mp.Wish()), "`wish`: expected a `CurveGoal`"),
        (lambda _: mp.CalibrateOptions(until="x"), "`until`"),
        (lambda _: mp.Sweep(CONFIG, seeds=[1, 2]), "`seeds`: expected 1"),
        (lambda _: mp.merge(HOLDS_ITSELF, "out"), "holds itself"),
        (lambda _: mp.merge({**CONFIG, "dtype": object()}, "out"), "what no YAML can"),
        (lambda _: mp.inspect(3), "expected a path"),
    ],
)
def test_a_mistake_is_named(call, words, law, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mp.MergeplanError) as caught:
        call(law)
    assert caught.value.exit_code == 1
    assert words in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_hint_names_one_of_those_that_match(tmp_path):
    rows = [f"ta,{k},{1 + x / k},'{{\"lambda\": {x}}}'" for x in (0.2, 0.4) for k in (1, 2, 4)]
    text = "method,k,loss_nats,options\n" + "\n".join(rows).replace('"', '""').replace("'", '"')
    (tmp_path / "m.csv").write_text(text)
    found = mp.fit(tmp_path / "m.csv")
    with pytest.raises(mp.InputError, match="2 fits match") as caught:
        found.predict(4, method="ta")
    assert caught.value.hint == """name one: `options='{"lambda": 0.2}'`"""
    assert found.predict(4, options='{"lambda": 0.2}').loss == pytest.approx(1.05)


def test_outputs_that_cannot_be_are_surroundings(tmp_path):
    requests = [mp.MergeRequest(CONFIG, tmp_path / out) for out in ("a", "a/b")]
    with pytest.raises(mp.InputError, match="lies inside that of another"):
        mp.merge_many(requests)
    with pytest.raises(mp.SurroundingsError, match="cannot create"):
        mp.merge(CONFIG, tmp_path / ("x" * 300))
    with pytest.raises(mp.SurroundingsError, match="cannot write"):
        mp.plot(CSV, tmp_path / "none" / "p.png")
    assert list(tmp_path.iterdir()) == []


def test_numpys_numbers_are_numbers_in_a_config(tmp_path):
    models = [{"model": mp.DEMO_POOL / name} for name in ("js", "md")]
    config = {"merge_method": "linear", "models": models, "parameters": {"weight": np.float32(0.5)}}
    assert mp.merge(config, tmp_path / "out").tensors == 27
    found = mp.inspect(config)
    assert found.fits
    assert found.merges[0].method == "linear"


def test_what_is_saved_loads(few_measured, tmp_path, law):
    mp.save_law(law, tmp_path / "law.json")
    assert mp.load_law(str(tmp_path / "law.json")) == law
    mp.save_geometry(mp.similarity(mp.load_pool(mp.DEMO_POOL / "pool.yml")), tmp_path / "g.json")
    assert mp.select(few_measured, method="average", geometry=tmp_path / "g.json")[0].best


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k,loss_nats\n1,2,5\n", "more cells than the head"),
        ("k,loss_nats,k\n1,2.5,1\n", "column `k` stands twice"),
        ('k,loss_nats,options\n1,2.5,"{""lambda"": NaN}"\n', "column `options`"),
        ('k,loss_nats,options\n1,2.5,"{""lambda"": 1' + "0" * 400 + '}"\n', "column `options`"),
    ],
)
def test_cells_that_would_be_misread(text, words, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(mp.InputError, match="m.csv") as caught:
        mp.load_measurements(tmp_path / "m.csv")
    assert words in caught.value.message


def test_cells_that_a_spreadsheet_adds_are_passed_over(tmp_path):
    (tmp_path / "m.csv").write_text("k,loss_nats,note,note,\n1,2.5,a,b,\n2,2.25,,,,\n")
    assert [row.loss_nats for row in mp.load_measurements(tmp_path / "m.csv").rows] == [2.5, 2.25]


@pytest.mark.parametrize(
    "text",
    [
        "unit: &a [*a]",
        "train: 0x" + "f" * 5000,
        "unit: 2020-01-01",
        "unit: !!binary aGk=",
    ],
)
def test_a_yaml_that_no_json_can_hold(text, tmp_path):
    (tmp_path / "c.yml").write_text(text)
    with pytest.raises(mp.InputError, match="c.yml"):
        mp.suggest(CSV, 1.9, costs=tmp_path / "c.yml")


def test_rows_are_read_by_a_path_in_letters_too(tmp_path):
    (tmp_path / "measurements.csv").write_text("k,loss_nats\n1,2.5\n")
    with pytest.raises(mp.InputError, match="it is a folder"):
        read_rows(str(tmp_path))
    assert [row.loss_nats for row in read_rows(str(tmp_path / "measurements.csv"))[0]] == [2.5]
