"""Odd but possible measurements: answers stay right, or an error says why there is none."""

import json
import re

import pytest

from mergeplan.errors import InputError
from mergeplan.law.file import law_data, load_law
from mergeplan.law.fit import fit
from mergeplan.law.recommend import recommend
from mergeplan.law.recommendation import Goal
from mergeplan.law.suggest import suggest
from mergeplan.measurements.columns import COLUMNS
from mergeplan.measurements.file import read_rows, table_text
from mergeplan.selection.select import select
from mergeplan.selection.selection import Wish
from mergeplan.verdict.answer import verdict_of
from tests.support.commands import cli


def write(folder, rows: str):
    (folder / "m.csv").write_text(rows)
    return folder / "m.csv"


def curve(method: str, size: str, floor: float, tail: float, ks=(1, 2, 4, 8)) -> str:
    return "".join(f"{method},{size},{k},{floor + tail / k}\n" for k in ks)


HEAD = "method,n_params,k,loss_nats\n"


def test_without_a_target_a_method_that_gains_nothing_does_not_win(tmp_path):
    flat = "".join(f"dare,1B,{k},{5 + 0.0001 * k}\n" for k in (1, 2, 4, 8))
    path = write(tmp_path, HEAD + curve("ties", "1B", 0.5, 0.4) + flat)
    assert recommend(fit(path)).best.fit.series.method == "ties"


def test_a_budget_alone_buys_the_lowest_loss(tmp_path):
    rows = "".join(curve("average", f"{n}B", 0.3 + 0.2 / n**0.5, 0.1) for n in (0.5, 1, 2))
    found = recommend(fit(write(tmp_path, HEAD + rows)), goal=Goal(budget=4.1))
    assert found.reached
    assert found.best.predicted.loss == pytest.approx(found.within_budget.loss)
    assert found.best.cost <= 4.1
    assert not recommend(fit(tmp_path / "m.csv"), goal=Goal(budget=0.1)).reached


def test_a_budget_without_sizes_is_refused(tmp_path):
    path = write(tmp_path, "k,loss_nats\n1,1.0\n2,0.9\n4,0.85\n")
    with pytest.raises(InputError, match="a budget needs the sizes"):
        recommend(fit(path), goal=Goal(budget=1))


def test_a_size_that_only_the_joint_law_knows_can_be_the_answer(tmp_path):
    rows = "".join(curve("average", f"{n}B", 0.3 + 0.2 / n**0.5, 0.1) for n in (0.5, 1, 2))
    write(tmp_path, HEAD + rows)
    run = cli("suggest", tmp_path / "m.csv", "--target-loss", 0.40, "--sizes", "7B")
    assert run.returncode == 0, run.stderr
    assert "of no measured size is enough" in run.stdout
    assert "cheapest for the target: k = 5 at 7B" in run.stdout
    assert "size not measured; 0.3" in run.stdout
    assert "merge 5 of 8 experts by average at 7B, a size that was not measured" in run.stdout


def test_the_error_of_a_formed_macro_mean_comes_from_its_domains(tmp_path):
    rows = "k,domain,subset,loss_nats,loss_se\n"
    for k, subset in ((1, "x"), (1, "y"), (2, "x+y")):
        rows += "".join(f"{k},{d},{subset},{1 + 0.1 / k},0.2\n" for d in ("a", "b"))
    (series,) = (f.series for f in fit(write(tmp_path, rows)).fits)
    assert series.loss_se == pytest.approx(0.2 / 2**0.5)


def test_the_pool_and_the_base_are_the_files_not_the_methods(tmp_path):
    rows = "method,k,subset,loss_nats\n,0,,0.2\n"
    rows += "".join(f"average,1,{name},{0.5 + i / 100}\n" for i, name in enumerate("abcdefghi"))
    rows += "average,9,a+b+c+d+e+f+g+h+i,0.4\n"
    rows += "ties,1,a,0.5\nties,1,b,0.52\nties,2,a+b,0.45\nties,3,a+b+c,0.42\n"
    for found in fit(write(tmp_path, rows)).fits:
        assert found.series.pool_size == 9
        assert found.series.base_loss == 0.2
    assert any(
        "the base itself has 0.2" in w for w in recommend(fit(tmp_path / "m.csv")).best.warnings
    )


def test_interference_measures_gains_against_the_lowest_point(tmp_path):
    rows = "k,loss_nats\n"
    rows += "".join(f"{k},{0.5 + 0.3 / k + 0.9 * k / (k + 8)}\n" for k in range(1, 17))
    best = recommend(fit(write(tmp_path, rows), form="interference"), goal=Goal(epsilon=0.05)).best
    assert best.k == 2
    assert best.near_floor is None
    assert best.fit.law.fraction(2, 16) == pytest.approx(1.0, abs=0.05)


def test_below_the_measured_k_is_an_extrapolation_too(tmp_path):
    rows = "k,loss_nats\n" + "".join(
        f"{k},{1 + 0.3 / k + 1e-3 * (k % 3)}\n" for k in (4, 8, 12, 16)
    )
    (found,) = fit(write(tmp_path, rows)).fits
    at_one, inside = found.predict(1), found.predict(6)
    assert at_one.extrapolated
    assert not inside.extrapolated
    assert at_one.high - at_one.low > 2 * (inside.high - inside.low)


def test_another_pool_varies_as_two_pools_do(tmp_path):
    rows = "k,subset,loss_nats\n"
    rows += "".join(f"1,{name},{0.5 + i / 100}\n" for i, name in enumerate("abcdefghi"))
    rows += "2,a+b,0.45\n2,c+d,0.46\n2,e+f,0.47\n9,a+b+c+d+e+f+g+h+i,0.4\n"
    (found,) = fit(write(tmp_path, rows)).fits
    deviation = (2 * found.spread.scale / 9) ** 0.5
    other = found.another_pool(5)
    assert other.high - other.low >= 2 * 1.6 * deviation


def test_robust_reaches_the_joint_law(tmp_path):
    rows = "".join(curve("average", f"{n}B", 0.3 + 0.2 / n**0.5, 0.1) for n in (0.5, 1, 2, 4))
    path = write(tmp_path, HEAD + rows.replace("average,1B,4,0.525", "average,1B,4,0.9"))
    plain, robust = (fit(path, robust=r).joints[0].law for r in (False, True))
    wrong = abs(plain.predict(4, 1.0) - 0.525)
    assert abs(robust.predict(4, 1.0) - 0.525) < 0.3 * wrong


def test_rows_of_unequal_weights_are_left_out_and_said(tmp_path):
    rows = "k,subset,weights,loss_nats\n1,a,1,1.0\n1,b,1,1.1\n2,a+b,1+1,0.9\n2,a+b,2+1,0.1\n"
    result = fit(write(tmp_path, rows))
    assert result.fits[0].series.points[1].loss == 0.9
    assert "1 rows of unequal weights" in result.skipped[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("k,loss_nats,subset\n2,1.0,a+a+b\n", "expected 2 different experts"),
        ("k,loss_nats,pool_size\n1,1.0,²\n", "column `pool_size`"),
        ("k,loss_nats,pool_size\n1,1.0,1000000\n", "column `pool_size`"),
        ("k,loss_nats,n_params\n1,1.0,0B\n", "column `n_params`"),
        ("k,loss_nats,n_params\n1,1.0,1e999\n", "column `n_params`"),
        ("k,loss_nats\n1,1e200\n", "column `loss_nats`"),
        ("k,loss_nats\n1,1e-200\n", "column `loss_nats`"),
        ("k,loss_nats,weights\n1,1.0,heavy\n", "column `weights`"),
        ("k,loss_nats,pool_size\n2,1.0,2\n2,1.1,2\n1,1.2,2\n", "a pool of 2 only 1 subsets"),
        ("k,loss_nats\n1,1.0\n1,1.1\n1,1.2\n2,0.9\n", "pool of 2 (a guess, from the largest k)"),
        ("k,subset,loss_nats\n2,a+b,1.0\n3,,0.9\n", "is 2 (a guess, from the experts' names)"),
        (f"k,loss_nats,subset\n1,1.0,{'x' * 200_000}\n", "field larger than field limit"),
    ],
)
def test_values_that_cannot_be_are_refused(rows, message, tmp_path):
    with pytest.raises(InputError) as caught:
        fit(write(tmp_path, rows))
    assert message in caught.value.message


def two_domains(lacking: dict[str, str]) -> str:
    """Every subset of three experts and the base, on two domains, but for what some lack."""
    subsets = ["", "a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    rows = [
        f"{len(names := subset.split('+')) if subset else 0},{subset},{domain},"
        f"{1 + 0.5 / (1 + 2 * len(names if subset else [])) + 0.01 * number + shift}\n"
        for number, subset in enumerate(subsets)
        for domain, shift in (("code", 0.0), ("math", 0.2))
        if lacking.get(subset) != domain
    ]
    return "k,subset,domain,loss_nats\n" + "".join(rows)


def warnings_of(path, domain=None) -> list[str]:
    """What `fit` and `suggest`, and what `select` say."""
    result = fit(path, domain=domain)
    found = [text for one in result.fits for text in one.warnings if "not measured on" in text]
    assert set(found) <= set(recommend(result).best.warnings)
    (selection,) = select(path, wish=Wish(domain))
    return found + [text for text in selection.warnings if "not measured on" in text]


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        (
            {"a+b": "math"},
            "1 of 8 merges was not measured on `math` and left out: measure it",
        ),
        (
            {"a+b": "math", "a+c": "math", "": "code"},
            "3 of 8 merges were not measured on every domain (2 without `math`, 1 without",
        ),
    ],
)
def test_merges_that_lack_a_domain_are_said_to_be_left_out(lacking, words, tmp_path):
    path = write(tmp_path, two_domains(lacking))
    first, second = warnings_of(path)
    assert first.startswith(words)
    assert first.endswith("choose other domains by `--domain`")
    assert second == first.replace("`--domain`", "`--domains`")
    # A domain that all have leaves nothing out.
    alone = {"a+b": "math"}
    assert warnings_of(write(tmp_path, two_domains(alone)), "code") == []
    assert len(warnings_of(path, "math")) == 2
    assert warnings_of(write(tmp_path, two_domains({}))) == []


def test_a_macro_mean_is_formed_beside_those_that_stand_in_the_file(tmp_path):
    rows = two_domains({})
    path = write(tmp_path, rows + "2,a+b,macro,1.5\n")
    assert warnings_of(path) == []
    plain = fit(write(tmp_path, rows)).fits[0].series
    mixed = fit(write(tmp_path, rows + "2,a+b,macro,1.5\n")).fits[0].series
    assert mixed.points[0] == plain.points[0]
    assert mixed.points[1].n_subsets == plain.points[1].n_subsets == 3


BENCHMARK = "k,metric,value,better,value_se,n_items\n1,acc,0.4,higher,{},{}\n"


@pytest.mark.parametrize(
    ("se", "items", "message"),
    [
        ("-0.1", "500", "column `value_se`: expected a standard error of 0 or more, found `-0.1`"),
        ("nan", "500", "column `value_se`"),
        ("inf", "500", "column `value_se`"),
        ("small", "500", "column `value_se`"),
        ("0.02", "0", "column `n_items`: expected a whole number, 1 or more, found `0`"),
        ("0.02", "2.5", "column `n_items`"),
        ("0.02", "-3", "column `n_items`"),
        ("0.02", "many", "column `n_items`"),
    ],
)
def test_the_error_of_a_benchmark_is_checked(se, items, message, tmp_path):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_rows(write(tmp_path, BENCHMARK.format(se, items)))
    assert "m.csv`, row 2, column" in caught.value.message


def test_the_error_of_a_benchmark_is_read_and_written(tmp_path):
    rows, _ = read_rows(write(tmp_path, BENCHMARK.format("0.0219", "500")))
    assert (rows[0].value_se, rows[0].n_items, rows[0].loss_se) == (0.0219, 500, None)
    assert read_rows(write(tmp_path, table_text(rows, COLUMNS)))[0] == rows
    bare, _ = read_rows(write(tmp_path, BENCHMARK.format("", "")))
    assert (bare[0].value_se, bare[0].n_items) == (None, None)


def test_spaces_and_numpys_numbers_are_read(tmp_path):
    rows = "k,loss_nats,subset,n_params\n1,1.0,a,4.94e+08\n2,0.9,a + c,4.94e+08\n"
    (series,) = (f.series for f in fit(write(tmp_path, rows)).fits)
    assert (series.pool_size, series.n_params) == (2, 494_000_000)


def test_the_few_parameters_of_a_small_base_are_read_where_calibrate_wrote_them(tmp_path):
    rows = "k,loss_nats,n_params,pool_hash\n1,1.0,792,{0}\n2,0.9,792,{0}\n"
    (series,) = (f.series for f in fit(write(tmp_path, rows.format("ab12"))).fits)
    assert series.n_params == 792
    with pytest.raises(InputError, match="column `n_params`") as caught:
        fit(write(tmp_path, rows.format("")))
    assert caught.value.hint == "a number below 10000 needs a unit: 792B or 792k?"


@pytest.mark.parametrize(
    "damage",
    [
        lambda law: law.update(fits=[]),
        lambda law: law["fits"][0]["series"].update(points=[]),
        lambda law: law["fits"][0]["series"].update(pool_size=None),
        lambda law: law["fits"][0]["series"].update(pool_size=0),
        lambda law: law["fits"][0]["law"].update(floor="x"),
        lambda law: law["fits"][0]["law"].update(tail=float("nan")),
        lambda law: law["fits"][0]["series"].update(options="[]"),
    ],
)
def test_a_damaged_law_is_refused(damage, tmp_path):
    law = law_data(fit(write(tmp_path, "k,loss_nats\n1,1.0\n2,0.9\n4,0.85\n")))
    law = json.loads(json.dumps(law))
    damage(law)
    (tmp_path / "law.json").write_text(json.dumps(law))
    with pytest.raises(InputError):
        load_law(tmp_path / "law.json")


def test_a_target_that_is_never_reached_has_no_interval_of_infinities(tmp_path):
    write(tmp_path, "k,loss_nats\n1,1.0\n2,1.0\n4,1.0\n")
    run = cli("suggest", tmp_path / "m.csv", "--target-loss", 0.5)
    assert run.returncode == 4
    assert "inf" not in run.stdout


@pytest.mark.parametrize("read", [fit, select, verdict_of, suggest])
def test_two_pools_in_one_table_are_named_by_whoever_reads_it(tmp_path, read):
    rows = "k,subset,loss_nats,n_params,method,pool_hash\n0,,1.5,792,,{0}\n"
    rows += "".join(f"1,{name},1.2,792,average,{{0}}\n" for name in "abc")
    rows += "2,a+b,1.1,792,average,{0}\n3,a+b+c,1.05,792,{1},{2}\n"
    path = tmp_path / "m.csv"
    # Another method's merge of the same names is of the other pool all the same.
    for label in ("average", "ties"):
        path.write_text(rows.format("ab", label, "cd"))
        with pytest.raises(InputError) as caught:
            read(path)
        message = "two pools in one table at 792 parameters: column `pool_hash` is `ab` in row 2"
        assert caught.value.message == f"`{path}`: {message} and `cd` in row 7"
        assert caught.value.hint == "keep each pool in a table of its own"
    # Sizes of one pool that were measured in two runs are no two pools.
    path.write_text(rows.format("ab", "average", "ab") + "0,,1.4,800,,cd\n")
    read(path)
