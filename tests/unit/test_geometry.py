"""How the experts of a pool lie to each other: the core against the numpy reference."""

import numpy as np
import pytest
import torch

from mergeplan.checkpoints.layers import layer_of
from mergeplan.errors import InputError
from mergeplan.pool.geometry.compare import DENSITIES, geometry_of, module_kind, similarity
from mergeplan.pool.geometry.file import geometry_data, gram_for, load_grams
from mergeplan.pool.pool import PoolSize
from mergeplan.reference import similarity as reference
from mergeplan.system.writing import write_durably
from tests.support.checkpoints import load_tensors, save_checkpoint


def expected_of(size: PoolSize, tensors: list[str]):
    """Gram, agreement and shares of some tensors, in float64."""
    base = load_tensors(size.base)
    experts = [load_tensors(size.experts[name]) for name in sorted(size.experts)]
    found = [
        reference.similarity(
            base[name].double().numpy(), [e[name].double().numpy() for e in experts], DENSITIES
        )
        for name in tensors
    ]
    gram = sum(one.gram for one in found)
    kept = sum(one.kept * np.diag(one.gram)[:, None] for one in found) / np.diag(gram)[:, None]
    return gram, sum(o.agreeing for o in found) / sum(o.nonzero for o in found), kept


def make_size(folder, base: dict, experts: list[dict]) -> PoolSize:
    save_checkpoint(folder / "base", base)
    for number, tensors in enumerate(experts):
        save_checkpoint(folder / f"e{number}", tensors)
    return PoolSize(
        folder / "base", {f"e{number}": folder / f"e{number}" for number in range(len(experts))}
    )


def test_a_real_pool_is_compared_as_the_reference_does(demo_pool):
    (found,) = similarity(demo_pool / "pool.yml")
    names = sorted(path.name for path in demo_pool.iterdir() if (path / "config.json").exists())
    names.remove("base")
    assert list(found.experts) == names
    size = PoolSize(demo_pool / "base", {name: demo_pool / name for name in names})
    tensors = list(load_tensors(size.base))
    gram, agreement, kept = expected_of(size, tensors)
    assert np.allclose(found.whole.gram, gram, rtol=1e-6, atol=1e-9 * gram.max())
    assert np.array_equal(found.whole.gram, found.whole.gram.T)
    assert np.allclose(found.whole.agreement, agreement, atol=1e-9)
    # Magnitudes are told apart by the upper bits of a float32.
    assert np.allclose(found.whole.kept, kept, atol=2e-3)
    assert np.allclose(np.diag(found.whole.cosines), 1)
    assert found.whole.n_elements == sum(t.n_elements for t in found.by_kind.values())
    inside = [name for name in tensors if (layer_of(name) or ("", -1))[1] == 0]
    gram, _, _ = expected_of(size, inside)
    assert np.allclose(found.by_layer[0].gram, gram, rtol=1e-6, atol=1e-9 * gram.max())
    attention = [name for name in tensors if module_kind(name) == "attention"]
    gram, _, _ = expected_of(size, attention)
    assert np.allclose(found.by_kind["attention"].gram, gram, rtol=1e-6, atol=1e-9 * gram.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_threads_and_runs_change_no_bit(dtype, tmp_path):
    """Several runs, odd lengths, a scalar, an empty tensor, and an expert that is the base."""
    torch.manual_seed(0)
    shapes = {"long": (1031, 1033), "odd": (77,), "scalar": (), "empty": (0, 4)}
    base = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    experts = [
        {n: (t.float() + s * torch.randn(t.shape)).to(dtype) for n, t in base.items()}
        for s in (0.1, 0.3, 0.0, 0.02, 0.1, 1.0)
    ]
    size = make_size(tmp_path, base, experts)
    one, many = (geometry_of(size, threads=threads) for threads in (1, 3))
    for field in ("gram", "agreement", "kept"):
        found, again = getattr(one.whole, field), getattr(many.whole, field)
        assert np.array_equal(found, again, equal_nan=True)
    with np.errstate(all="ignore"):
        gram, agreement, _ = expected_of(size, ["long", "odd", "scalar"])
    assert np.allclose(one.whole.gram, gram, rtol=1e-6, atol=1e-7 * gram.max())
    assert np.allclose(one.whole.agreement, agreement, atol=1e-6, equal_nan=True)
    assert one.whole.norms[2] == 0
    assert np.isnan(one.whole.cosines[2]).all()
    assert one.whole.kept[2].tolist() == [1.0] * len(DENSITIES)


def test_what_cannot_be_compared_is_named(tmp_path):
    base = {"a": torch.ones(3), "b": torch.ones(4), "c": torch.arange(3), "only": torch.ones(2)}
    expert = {"a": torch.zeros(3), "b": torch.ones(5), "c": torch.arange(3), "more": torch.ones(1)}
    found = geometry_of(make_size(tmp_path, base, [expert, expert]))
    assert found.whole.n_elements == 3
    assert set(found.left_out) == {"b", "c", "only", "more"}
    assert "shape" in found.left_out["b"]
    assert "I64" in found.left_out["c"]


def test_values_that_are_not_finite_and_nothing_in_common_are_errors(tmp_path):
    base = {"a": torch.ones(3)}
    with pytest.raises(InputError, match=r"e0.*`a`"):
        geometry_of(make_size(tmp_path / "1", base, [{"a": torch.tensor([1.0, torch.nan, 0])}]))
    with pytest.raises(InputError, match="nothing of .* can be compared"):
        geometry_of(make_size(tmp_path / "2", base, [{"b": torch.ones(3)}]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("broken", ["base", "e1"])
def test_a_value_that_is_not_finite_is_told_by_its_place(dtype, broken, tmp_path):
    """Far behind the first block that is held, where all models have another dtype than one."""
    models = {name: torch.ones(40_000, dtype=dtype) for name in ("base", "e1")}
    models[broken][33_333] = torch.inf
    experts = [{"a": torch.ones(40_000)}, {"a": models["e1"]}]
    with pytest.raises(InputError, match=rf"{broken}.*`a`.*33333|{broken}.*33333.*`a`"):
        geometry_of(make_size(tmp_path, {"a": models["base"]}, experts))


def test_the_file_gives_the_matrix_back_in_any_order(demo_pool, tmp_path):
    import json

    (found,) = similarity(demo_pool / "pool.yml")
    path = tmp_path / "geometry.json"
    write_durably(path, json.dumps(geometry_data([found])), replace=False)
    grams = load_grams(path)
    names = [found.experts[4], found.experts[1]]
    matrix = gram_for(grams, found.n_params, names)
    assert matrix[0, 1] == found.whole.gram[4, 1]
    assert matrix[1, 1] == found.whole.gram[1, 1]
    with pytest.raises(InputError, match="no expert `nobody`"):
        gram_for(grams, None, ["nobody"])
    with pytest.raises(InputError, match="no base of"):
        gram_for(grams, 7e9, names)
    path.write_text("{}")
    with pytest.raises(InputError, match="`format` is missing"):
        load_grams(path)
