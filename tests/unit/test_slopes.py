"""Inner products of gradients with what experts add to a merge, against plain numpy in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import mergeplan
from mergeplan.errors import InputError
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.slopes import Slopes
from mergeplan.reference.deltas import DeltaOptions, merge_deltas, slopes
from tests.support.checkpoints import load_tensors

NAMES = ("python", "json", "md", "perl")
# Of votes that count as what changes: `rust/core/src/kernels/slope.rs`.
WIDTH = 0.05
LINEAR = {
    "linear": {},
    "task_arithmetic": {"normalize": True, "lambda": 0.7},
    "dare_linear": {"density": 0.6, "lambda": 0.9},
    "della_linear": {"density": 0.5, "epsilon": 0.2},
    "breadcrumbs": {"density": 0.6, "gamma": 0.05},
}


def config_of(pool, method, parameters, names=NAMES, weights=None, **top):
    base = [{"model": str(pool / "base"), "parameters": {"weight": 0.0}}]
    weights = weights or [1.0] * len(names)
    models = [
        {"model": str(pool / n), "parameters": {"weight": w}}
        for n, w in zip(names, weights, strict=True)
    ]
    return {
        "merge_method": method,
        "base_model": str(pool / "base"),
        "models": (base if method == "linear" else []) + models,
        "parameters": {"normalize": True, **parameters},
        "dtype": "float32",
        "out_dtype": "bfloat16",
        **top,
    }


def gradients_for(found, dtype=torch.float32, count=2):
    torch.manual_seed(1)
    return {
        job.tensor: [torch.randn(job.shape, dtype=torch.float64).to(dtype) for _ in range(count)]
        for job in found.jobs
    }


def products_by_hand(gradients, deltas):
    return {
        name: np.array(
            [[float((g.double() * d[name].double()).sum()) for d in deltas] for g in some]
        )
        for name, some in gradients.items()
    }


def check(found, expected, gradients, deltas, tolerance):
    for name, values in found.items():
        norms = [
            [float(g.double().norm() * d[name].double().norm()) for d in deltas]
            for g in gradients[name]
        ]
        assert np.all(np.abs(values - expected[name]) <= tolerance * np.array(norms) + 1e-300), name


@pytest.mark.parametrize("method", LINEAR)
def test_products_are_with_what_each_expert_alone_adds(demo_pool, method):
    found = Slopes(config_of(demo_pool, method, LINEAR[method]), MergeOptions(seed=5))
    base = {name: tensor.double() for name, tensor in load_tensors(demo_pool / "base").items()}
    deltas = []
    for name in NAMES:
        alone = config_of(demo_pool, method, LINEAR[method], [name], out_dtype="float32")
        merged = dict(mergeplan.stream(alone, MergeOptions(seed=5)))
        deltas.append({key: merged[key].double() - base[key] for key in merged})
    gradients = gradients_for(found)
    products = found.products(gradients)
    assert products.keys() == base.keys()
    # A merge is rounded to float32, where the base's size decides; a slope is not.
    check(products, products_by_hand(gradients, deltas), gradients, deltas, 1e-5)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.5, 0.0, 2.0, -1.0)])
def test_where_signs_are_elected_they_are_held_or_change_by_near_votes(
    demo_pool, normalize, weights
):
    parameters = {"density": 0.3, "lambda": 0.8, "normalize": normalize}
    found = Slopes(config_of(demo_pool, "ties", parameters, weights=weights), with_lambda=True)
    base = load_tensors(demo_pool / "base")
    experts = [load_tensors(demo_pool / name) for name in NAMES]
    options = DeltaOptions("magnitude", consensus=True, normalize=normalize, lambda_=0.8)
    deltas = [{} for _ in (*NAMES, "lambda")]
    for name, tensor in base.items():
        start = tensor.double().numpy()
        ends = [one[name].double().numpy() for one in experts]
        each = slopes(start, ends, weights, [0.3] * len(NAMES), options, WIDTH)
        whole = replace(options, lambda_=1.0)
        each.append(merge_deltas(start, ends, weights, [0.3] * len(NAMES), whole) - start)
        for own, slope in zip(deltas, each, strict=True):
            own[name] = torch.from_numpy(slope)
    gradients = gradients_for(found)
    expected = products_by_hand(gradients, deltas)
    check(found.products(gradients), expected, gradients, deltas, 1e-5)


@pytest.mark.parametrize("lambda_", [0.7, 0.0])
@pytest.mark.parametrize("method", [*LINEAR, "ties", "dare_ties", "della", "breadcrumbs_ties"])
def test_along_lambda_every_method_moves_as_its_merges_do(demo_pool, method, lambda_):
    parameters = {"density": 0.5} | LINEAR.get(method, {})
    weights, options = [0.5, 0.0, 2.0, 1.0], MergeOptions(seed=5)

    def config(scale):
        own = parameters | {"lambda": scale}
        return config_of(demo_pool, method, own, weights=weights, out_dtype="float32")

    if method == "linear":
        with pytest.raises(InputError, match="`linear` has no lambda"):
            Slopes(config(lambda_), options, with_lambda=True)
        return
    found = Slopes(config(lambda_), options, with_lambda=True)
    # A merge is rounded to float32 where the base's size decides: less of a long step.
    up, down = (dict(mergeplan.stream(config(scale), options)) for scale in (64.0, -64.0))
    moved = {name: (up[name].double() - down[name].double()) / 128 for name in up}
    gradients = gradients_for(found, torch.float64, count=1)
    products = {name: one[:, -1:] for name, one in found.products(gradients).items()}
    check(products, products_by_hand(gradients, [moved]), gradients, [moved], 1e-5)


@pytest.mark.parametrize("consensus", [True, False])
@pytest.mark.parametrize("weights", [(0.7, 1.3, 0.4), (0.7, -1.3, 0.4)])
def test_the_reference_is_what_differences_give_where_no_sign_changes(consensus, weights):
    rng = np.random.default_rng(0)
    base, experts = rng.normal(size=300), rng.normal(size=(3, 300))
    options = DeltaOptions("magnitude", consensus=consensus, normalize=consensus, lambda_=0.7)
    weights, step = np.array(weights), 1e-6

    def merged(moved):
        return merge_deltas(base, list(experts), list(moved), [0.5] * 3, options)

    for expert, slope in enumerate(slopes(base, list(experts), list(weights), [0.5] * 3, options)):
        move = step * np.eye(3)[expert]
        differences = (merged(weights + move) - merged(weights - move)) / (2 * step)
        off = np.abs(differences - slope) > 1e-6
        assert off.mean() < (0.01 if consensus else 1e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_near_votes_say_what_signs_that_change_do_to_a_sum(normalize):
    """Of so many elements that their jumps are a slope: along a gradient like an expert's delta."""
    rng = np.random.default_rng(0)
    base, experts = np.zeros(100_000), list(rng.normal(size=(4, 100_000)))
    options = DeltaOptions(consensus=True, normalize=normalize)
    weights, gradient = np.full(4, 0.25), experts[0]

    def merged(step):
        moved = weights + np.array([step, 0, 0, 0])
        return gradient @ merge_deltas(base, experts, list(moved), [1.0] * 4, options)

    measured = (merged(0.01) - merged(-0.01)) / 0.02
    found, held = (
        gradient @ slopes(base, experts, list(weights), [1.0] * 4, options, width)[0]
        for width in (WIDTH, 0.0)
    )
    assert abs(found - measured) < 0.08 * measured
    assert held < 0.7 * measured


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_threads_and_company_change_no_bit_and_dtypes_are_read(demo_pool, dtype):
    config = config_of(demo_pool, "ties", {"density": 0.4})
    one = Slopes(config, MergeOptions(threads=1))
    gradients = gradients_for(one, dtype)
    whole = one.products(gradients)
    several = Slopes(config, MergeOptions(threads=3)).products(gradients)
    for name, some in gradients.items():
        alone = one.products({name: some[1:]})[name]
        assert np.array_equal(whole[name], several[name])
        assert np.array_equal(whole[name][1:], alone)


def test_what_has_no_slope_is_refused(demo_pool):
    models = [{"model": str(demo_pool / name)} for name in NAMES]
    stock = {"merge_method": "model_stock", "models": models, "dtype": "float32"}
    with pytest.raises(InputError, match="is merged by no sum of deltas"):
        Slopes({**stock, "base_model": str(demo_pool / "base")})
