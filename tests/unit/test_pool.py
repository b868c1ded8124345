"""`POOL.yml`: read strictly, paths relative to the file, N counted from headers."""

from dataclasses import replace

import pytest

from mergeplan.errors import InputError
from mergeplan.pool.pool import load_pool, size_in


def test_the_bundled_pool(demo_pool):
    pool = load_pool(demo_pool / "pool.yml")
    (size,) = pool.sizes
    assert size.count_params() == 80_592
    assert len(size.experts) == 9
    assert size.experts["md"].is_absolute()
    assert pool.methods["task_arithmetic"] == {"lambda": 0.4}


def test_n_params_may_be_given(tmp_path):
    (tmp_path / "p.yml").write_text("sizes: [{base: b, experts: {x: x}, n_params: 0.5B}]")
    assert load_pool(tmp_path / "p.yml").sizes[0].count_params() == 5e8


def test_a_tied_head_counts_once(tmp_path):
    import torch

    from tests.support.checkpoints import save_checkpoint

    tensors = {"model.embed_tokens.weight": torch.ones(5, 4), "lm_head.weight": torch.ones(5, 4)}
    save_checkpoint(tmp_path / "tied", tensors, {"tie_word_embeddings": True})
    save_checkpoint(tmp_path / "untied", tensors, {"tie_word_embeddings": False})
    for name, count in (("tied", 20), ("untied", 40)):
        (tmp_path / "p.yml").write_text(f"sizes: [{{base: {name}, experts: {{x: x}}}}]")
        assert load_pool(tmp_path / "p.yml").sizes[0].count_params() == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping"),
        ("sizes: []", "`sizes`: expected at least 1 entry, found 0"),
        ("sizs: []", "unknown key `sizs`"),
        ("sizes: [{base: b}]", "`sizes[0].experts` is missing"),
        (
            "sizes: [{base: b, experts: {}}]",
            "`sizes[0].experts`: expected at least 1 entry, found 0",
        ),
        ("sizes: [{experts: {x: x}}]", "`sizes[0].base` is missing"),
        (
            "sizes: [{base: b, experts: {x+y: x}}]",
            "`sizes[0].experts`: expected a name without + and commas",
        ),
        ("sizes: [{base: b, experts: {x: 3}}]", "`sizes[0].experts.x`: expected a text, found 3"),
        ("sizes: [{base: b, experts: {x: x}, n_params: 3}]", "`sizes[0].n_params`: found `3`"),
        ("sizes: [", "cannot read pool"),
        ("sizes: [{base: b, experts: {x: x, x: y}}]", "key `x` stands twice"),
        ("3: 1", "expected words as keys, found `3`"),
        (
            "sizes: [{base: b, experts: {x: x, y: ./c/../x}}]",
            "`sizes[0].experts.y` and `sizes[0].experts.x` are the same folder",
        ),
        ("sizes: [{base: b, experts: {x: b}}]", "`sizes[0].experts.x` and `sizes[0].base`"),
        ("sizes: [{base: b, experts: {x: x}}]\nmethods: {ties: {densty: 1}}", "option `densty`"),
        (
            "sizes: [{base: b, experts: {x: x}}]\nmethods: {base: {}}",
            "`methods`: expected a label: words other than `base`, found 'base'",
        ),
    ],
)
def test_a_bad_pool_is_named_by_key(text, message, tmp_path):
    (tmp_path / "p.yml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_pool(tmp_path / "p.yml")
    assert message in caught.value.message


@pytest.mark.parametrize("n_sizes", [1, 2])
def test_a_pool_without_the_measured_base_is_refused(demo_pool, n_sizes):
    pool = load_pool(demo_pool / "pool.yml")
    other = replace(pool.sizes[0], n_params=9e6)
    pool = replace(pool, sizes=(pool.sizes[0], other)[:n_sizes])
    assert size_in(81e3, pool) is pool.sizes[0]
    with pytest.raises(InputError, match="the pool has no base of 270k"):
        size_in(270e3, pool)


def test_keys_of_a_pool_that_stand_twice_are_all_told(tmp_path):
    (tmp_path / "p.yml").write_text("sizes: [{base: b, experts: {x: x, x: y}, base: c}]\n")
    with pytest.raises(InputError) as caught:
        load_pool(tmp_path / "p.yml")
    assert [one.excerpt.count("^") for one in caught.value.faults] == [1, 4]
