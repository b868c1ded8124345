"""Decisions: the smallest k, what speaks against it, and what to write."""

import dataclasses
import json
from itertools import combinations
from pathlib import Path

import pytest
import yaml

import mergeplan
from mergeplan.config.write import merge_config, to_yaml
from mergeplan.errors import InputError
from mergeplan.law.file import law_data, load_law
from mergeplan.law.fit import fit
from mergeplan.law.recommend import recommend
from mergeplan.law.write import choose_merge
from mergeplan.pool.pool import load_pool
from mergeplan.verdict.from_law import verdict_from_law
from tests.support.settings import DATA

PUBLISHED = DATA / "measured_llama3b_16_experts.csv"


@pytest.fixture
def demo(demo_pool):
    return fit(demo_pool / "measurements.csv", method="task_arithmetic")


def test_the_published_target_takes_twelve_experts():
    best = recommend(fit(PUBLISHED, pool_size=16), 0.66).best
    assert best.k == 12
    assert best.solution.exact == pytest.approx(11.94, abs=0.01)
    assert any("measured mean at k = 12 is 0.6603, above" in warning for warning in best.warnings)


def test_a_target_out_of_reach_is_a_result_with_the_best_to_be_had():
    recommendation = recommend(fit(PUBLISHED, pool_size=16), 0.60)
    assert not recommendation.reached
    assert "the pool has 16" in recommendation.best.reasons[0]
    assert "with all 16 experts" in recommendation.best.reasons[-1]
    floor = recommend(fit(PUBLISHED, pool_size=16), 0.5)
    assert "not above the floor of any merge" in floor.best.reasons[0]


def test_k_is_the_smallest_that_reaches_the_target_and_never_above_the_pool(demo):
    law = demo.fits[0].law
    for target in (1.95, 1.9227, 1.915, 1.9076, 1.9055, 1.9044):
        k = recommend(demo, target).best.k
        assert law.predict(k) <= target
        assert k == 1 or law.predict(k - 1) > target
    assert not recommend(demo, 1.9043).reached


def test_a_target_met_exactly_takes_no_extra_expert(demo):
    law = demo.fits[0].law
    assert recommend(demo, law.predict(4)).best.k == 4


def test_a_base_that_beats_the_merge_is_said_aloud(demo_pool):
    average = fit(demo_pool / "measurements.csv", method="average")
    best = recommend(average, 1.93).best
    assert any("the base itself has 1.9068" in warning for warning in best.warnings)
    assert any("merging does not pay" in warning for warning in best.warnings)
    assert average.fits[0].series.best_single[0] == "md"


def test_a_base_that_only_larger_merges_beat_is_said_with_their_k(demo):
    best = recommend(demo, 1.93).best
    assert best.k == 1
    assert any("merges of k = 5 and more beat it" in warning for warning in best.warnings)


def test_the_smallest_base_comes_first_then_the_fewest_experts(tmp_path):
    rows = "method,n_params,k,loss_nats\n"
    for size, floor in (("1.5B", 0.5), ("0.5B", 0.6)):
        rows += "".join(f"average,{size},{k},{floor + 0.3 / k}\n" for k in (1, 2, 4))
    (tmp_path / "m.csv").write_text(rows)
    result = fit(tmp_path / "m.csv", pool_size=8)
    best = recommend(result, 0.7).best
    assert (best.fit.series.n_params, best.k) == (5e8, 3)
    best = recommend(result, 0.61).best
    assert (best.fit.series.n_params, best.k) == (1.5e9, 3)
    assert best.k <= 8


@pytest.mark.parametrize(
    ("base", "kind", "k"), [(1.2, "k", 6), (0.3, "base", None), (0.75, "k", 6)]
)
def test_without_a_target_the_size_of_the_best_value_comes_first(base, kind, k, tmp_path):
    """The smallest was taken without a word; and of each size only its own base was looked at."""
    rows = f"method,n_params,k,loss_nats\nbase,14B,0,{base}\nbase,500M,0,1.5\n"
    for size, floor in (("500M", 0.9), ("14B", 0.6)):
        rows += "".join(f"average,{size},{k},{floor + 0.25 / (k + 0.1)}\n" for k in (1, 2, 4, 9))
    (tmp_path / "m.csv").write_text(rows)
    found = recommend(fit(tmp_path / "m.csv"))
    verdict = verdict_from_law(found)
    assert (verdict.kind, verdict.fails) == (kind, kind == "base")
    assert " at 14B" in verdict.headline()
    if k is not None:
        assert (found.best.fit.series.n_params, found.best.k) == (1.4e10, k)


def test_a_larger_base_without_merges_that_come_near_is_kept(tmp_path):
    rows = "method,n_params,k,loss_nats\nbase,14B,0,0.3\nbase,500M,0,1.5\n"
    for size, floor in (("500M", 0.6), ("14B", 0.9)):
        rows += "".join(f"average,{size},{k},{floor + 0.25 / (k + 0.1)}\n" for k in (1, 2, 4, 9))
    (tmp_path / "m.csv").write_text(rows)
    verdict = verdict_from_law(recommend(fit(tmp_path / "m.csv")))
    assert (verdict.kind, verdict.chosen.merge.n_params, verdict.chosen.value) == (
        "base",
        1.4e10,
        0.3,
    )


def test_a_law_file_gives_the_same_recommendation(demo, tmp_path):
    (tmp_path / "law.json").write_text(json.dumps(law_data(demo)))
    assert recommend(load_law(tmp_path / "law.json"), 1.9055) == recommend(demo, 1.9055)


def test_a_law_of_another_version_is_refused(tmp_path):
    (tmp_path / "law.json").write_text('{"law_version": 1}')
    with pytest.raises(InputError, match="expected law version 4, found 1"):
        load_law(tmp_path / "law.json")
    (tmp_path / "law.json").write_text('{"law_version": 4}')
    with pytest.raises(InputError, match="`data_sha256` is missing"):
        load_law(tmp_path / "law.json")


def test_the_best_measured_subset_is_taken(demo, demo_pool):
    best = recommend(demo, 1.9055).best
    chosen = choose_merge(best, load_pool(demo_pool / "pool.yml"), wish="for 1.9055", seed=0)
    assert chosen.subset == ("cheader", "html", "js", "json", "mande", "manfr")
    assert "of 84 measured subsets of 6 the one with the lowest loss" in chosen.reason
    config = yaml.safe_load(chosen.text)
    assert config["parameters"] == {"normalize": True, "lambda": 0.4}
    assert config["dtype"] == config["out_dtype"] == "float32"
    assert [Path(model["model"]).name for model in config["models"]] == list(chosen.subset)


def test_without_a_measured_subset_a_seeded_random_one_is_taken(demo_pool):
    data = mergeplan.fit(demo_pool / "measurements.csv", method="task_arithmetic")
    law = data.fits[0]
    points = tuple(p for p in law.series.points if p.k in (1, 2, 4))
    few = dataclasses.replace(law, series=dataclasses.replace(law.series, points=points))
    best = recommend(dataclasses.replace(data, fits=(few,)), 1.9055).best
    pool = load_pool(demo_pool / "pool.yml")
    one, again, other = (
        choose_merge(best, pool, wish="for 1.9055", seed=seed) for seed in (0, 0, 1)
    )
    assert one == again
    assert one.subset != other.subset
    assert len(set(one.subset)) == 6
    assert "drawn at random with seed 0" in one.text


def test_the_masks_of_a_recommended_merge_have_the_pools_seed(demo, demo_pool):
    best = recommend(demo, 1.9055).best
    pool = load_pool(demo_pool / "pool.yml")
    for label, seed in (("dare", 5), ("ties", None)):
        methods = {"task_arithmetic": {"method": label, "density": 0.5}}
        series = dataclasses.replace(best.fit.series, options="{}")
        one = dataclasses.replace(best, fit=dataclasses.replace(best.fit, series=series))
        seeded = dataclasses.replace(pool, methods=methods, random_seed=5)
        assert choose_merge(one, seeded).config.get("random_seed") == seed
        assert "random_seed" not in choose_merge(one, seeded, seed=0).config


@pytest.mark.parametrize(
    ("label", "options", "method", "parameters"),
    [
        ("average", {}, "linear", {"normalize": True}),
        ("task_arithmetic", {"lambda": 0.8}, "task_arithmetic", {"normalize": True, "lambda": 0.8}),
        (
            "ties",
            {"density": 0.2},
            "ties",
            {"normalize": True, "density": 0.2, "lambda": 1.0},
        ),
        (
            "dare",
            {"density": 0.8},
            "dare_linear",
            {"normalize": True, "density": 0.8, "lambda": 1.0, "rescale": True},
        ),
        (
            "ties_strong",
            {"method": "ties", "density": 0.2},
            "ties",
            {"normalize": True, "density": 0.2, "lambda": 1.0},
        ),
    ],
)
def test_emitted_configs_state_the_normalisation(label, options, method, parameters):
    config = merge_config(label, options, Path("base"), [Path("x"), Path("y")], "bfloat16")
    assert config["merge_method"] == method
    assert config["parameters"] == parameters
    assert (config["dtype"], config["out_dtype"]) == ("float32", "bfloat16")
    weights = {m["model"]: m["parameters"]["weight"] for m in config["models"]}
    assert weights == {"x": 1.0, "y": 1.0} | ({"base": 0.0} if method == "linear" else {})
    assert yaml.safe_load(to_yaml(config, ["a note"])) == config


def test_what_cannot_be_written_is_refused():
    for label, options, message in (
        ("slerp", {}, "cannot write a merge by `slerp`"),
        ("ties", {"densty": 1}, "has no option `densty`"),
    ):
        with pytest.raises(InputError, match=message):
            merge_config(label, options, Path("b"), [Path("x")], "float32")
    with pytest.raises(InputError, match="`@` and `\\+` would be read"):
        merge_config("ties", {}, Path("b"), [Path("x+y")], "float32")


@pytest.mark.parametrize(
    ("ks", "sampled", "words"),
    [
        ((1, 2, 3, 4), (), "measure all 5 experts merged"),
        ((1, 2, 4, 5), (), "measure at k = 3, where the decision lies"),
        ((2, 3, 4, 5), (), "measure the single experts"),
        ((1, 2, 3, 4, 5), (2, 4), "measure more subsets of 4"),
        ((1, 3, 4, 5), (), "measure at k = 2, the nearest that is missing"),
        ((1, 2, 3, 5), (), "measure at k = 4, the nearest that is missing"),
        ((1, 2, 3, 4, 5), (), "nothing: every subset was measured"),
    ],
)
def test_what_would_sharpen_the_answer_most(ks, sampled, words, tmp_path):
    """Five experts; the target takes three of them. `sampled` k lack subsets."""
    names = "abcde"
    rows = ["method,k,subset,loss_nats"]
    for k in ks:
        subsets = list(combinations(names, k))
        for number, subset in enumerate(subsets[: -k if k in sampled else None]):
            loss = 1 + 1 / k + 0.01 * (k - 1) * (-1) ** number * (number + 1 < len(subsets))
            rows.append(f"average,{k},{'+'.join(subset)},{loss}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    found = recommend(fit(tmp_path / "m.csv", pool_size=5), 1.36)
    assert found.best.k == 3
    assert found.sharpen.startswith(words)


def test_of_means_alone_single_experts_are_asked_for_as_rows(tmp_path):
    means, some = "1,1.5\n2,1.3\n4,1.2\n", "1,1.5\n1,1.6\n2,1.3\n2,1.4\n4,1.2\n"
    for rows, words in (
        (means, "give all measured single experts rows: a mean alone does not say"),
        (some, "measure more single experts: their mean"),
    ):
        (tmp_path / "m.csv").write_text("k,loss_nats\n" + rows)
        assert recommend(fit(tmp_path / "m.csv")).sharpen.startswith(words)


@pytest.mark.parametrize(
    ("ks", "target", "k", "extrapolated"),
    [((1, 2, 5), 1.21, 5, False), ((1, 2, 3), 1.21, 5, True), ((2, 3, 5), 1.6, 2, False)],
)
def test_a_k_beyond_what_was_measured_is_said_to_be_extrapolated(
    ks, target, k, extrapolated, tmp_path
):
    rows = [f"average,{k},{1 + 1 / k}" for k in ks]
    (tmp_path / "m.csv").write_text("\n".join(["method,k,loss_nats", *rows]) + "\n")
    best = recommend(fit(tmp_path / "m.csv", pool_size=5), target).best
    assert best.k == k
    assert any("extrapolated" in warning for warning in best.warnings) is extrapolated


def test_a_misspelt_method_is_guessed(demo_pool):
    with pytest.raises(InputError) as caught:
        fit(demo_pool / "measurements.csv", method="averge")
    assert caught.value.hint == "did you mean `average`?"
