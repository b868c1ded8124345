"""`subsets.csv`: written and read back, keys that tell merges apart, errors by row and column."""

import dataclasses

import pytest
import yaml

from mergeplan.config.labels import method_of
from mergeplan.errors import InputError, MissingInputError
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import (
    SubsetMerge,
    canonical_options,
    pool_paths_hash,
    read_subsets,
    subset_merge,
    write_subsets,
)


@pytest.fixture
def pool(demo_pool):
    found = load_pool(demo_pool / "pool.yml")
    return dataclasses.replace(
        found, methods={**found.methods, "sparse": {"method": "dare", "density": 0.5, "lambda": 1}}
    )


def test_what_is_written_is_read(pool, tmp_path):
    merges = [
        subset_merge(pool, 0, "average", ()),
        subset_merge(pool, 0, "average", ("md", "js"), seed=7),
        subset_merge(pool, 0, "sparse", pool.sizes[0].experts, seed=7),
        subset_merge(pool, 0, "task_arithmetic", ("md",), lambda_=0.8),
    ]
    write_subsets(tmp_path / "subsets.csv", merges, pool)
    rows = read_subsets(tmp_path / "subsets.csv")
    assert [row.merge for row in rows] == merges
    assert {row.pool_paths_hash for row in rows} == {pool_paths_hash(pool)}
    # The column's name in earlier versions.
    text = (tmp_path / "subsets.csv").read_text()
    (tmp_path / "old.csv").write_text(text.replace("pool_paths_hash", "pool_hash"))
    assert read_subsets(tmp_path / "old.csv") == rows
    for row in rows:
        assert yaml.safe_load(row.config.read_text()) == row.merge.config(pool)
    assert [merge.seed for merge in merges] == [0, 0, 7, 0]
    assert merges[2].settings == {"method": "dare", "density": 0.5, "lambda": 1.0}
    assert rows[0].merge.config(pool)["merge_method"] == "passthrough"


def test_the_few_parameters_of_a_small_base_are_read_as_written(pool, tmp_path):
    merge = dataclasses.replace(subset_merge(pool, 0, "average", ("md",)), n_params=792.0)
    write_subsets(tmp_path / "subsets.csv", [merge], pool)
    assert [row.merge for row in read_subsets(tmp_path / "subsets.csv")] == [merge]


def test_keys_differ_by_everything_but_the_size_index():
    merge = SubsetMerge(0, 8e4, "ties", '{"density": 0.2}', ("a", "b"), 3)
    others = [
        {"n_params": 80_001.0},
        {"method": "dare"},
        {"options": "{}"},
        {"subset": ("a", "c")},
        {"subset": ("a_b",)},
        {"seed": 4},
    ]
    keys = {dataclasses.replace(merge, **change).key for change in others} | {merge.key}
    assert len(keys) == len(others) + 1
    assert dataclasses.replace(merge, size=1).key == merge.key


def test_keys_of_long_and_odd_names_stay_file_names():
    names = tuple(sorted(f"expert/{i}" for i in range(60)))
    key = SubsetMerge(0, 5e8, "tiés x", "{}", names).key
    assert len(key) < 100
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_whole_numbers_and_floats_are_the_same_option():
    assert canonical_options({"lambda": 1}) == canonical_options({"lambda": 1.0})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",js+md,", ",js,", "row 3, column `subset`: expected 2 different experts"),
        (",js+md,", ",js+js,", "row 3, column `subset`"),
        (",2,js", ",two,js", "row 3, column `k`: expected a whole number from 0 to 9"),
        (",2,js", ",12,js", "row 3, column `k`"),
        ("80592,average,{},2", "0,average,{},2", "row 3, column `n_params`"),
        ("80592,average,{},2", "80592,average,[],2", "row 3, column `options`"),
        ("80592,average,{},2", "80592,,{},2", "row 3, column `method`"),
        ("80592,average,{},2", "80592,base,{},2", "row 3, column `method`"),
        ("80592,average,{},2", "80592,ties,{},2", "row 3, column `key`"),
        (",9,0,", ",9,-1,", "row 2, column `seed`"),
        ("options,k", "options,K", "column `k` is missing"),
    ],
)
def test_a_bad_row_is_named(pool, tmp_path, old, new, message):
    path = tmp_path / "subsets.csv"
    merges = [subset_merge(pool, 0, "average", names) for names in ((), ("js", "md"))]
    write_subsets(path, merges, pool)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_subsets(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_merge_that_stands_twice_is_named(pool, tmp_path):
    path = tmp_path / "subsets.csv"
    write_subsets(path, [subset_merge(pool, 0, "average", ("md",))], pool)
    path.write_text(path.read_text() + path.read_text().splitlines()[1])
    with pytest.raises(InputError, match=r"row 3, column `key`: .* stands in row 2 already"):
        read_subsets(path)
    with pytest.raises(MissingInputError):
        read_subsets(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        ("ties", {"density": 20}, "expected a number from 0 to 1 as `density`: `20`"),
        ("ties", {"density": True}, "as `density`"),
        ("ties", {"lambda": "1e-1"}, "as `lambda`"),
        ("ties", {"lambda": float("nan")}, "as `lambda`"),
        ("task_arithmetic", {"density": 0.5}, "has no option `density`"),
        ("della", {"density": 0.9}, "`density` + `epsilon`"),
        ("slerp", {}, "cannot write a merge by `slerp`"),
    ],
)
def test_wrong_options_are_named_before_any_work(label, options, message):
    with pytest.raises(InputError) as caught:
        method_of(label, options)
    assert message in caught.value.message
