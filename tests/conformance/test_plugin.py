"""mergeplan's kernels inside mergekit: the results are those of `mergeplan merge`, to the bit.

That the reference equals mergekit by its class is what `test_tensors` shows; here mergekit runs,
and the arithmetic is ours.
"""

import importlib.metadata

import numpy as np
import pytest
import torch

from mergeplan import mergekit_plugin
from mergeplan.config.methods import METHODS
from mergeplan.errors import InputError, MissingInputError
from tests.support.backends import by_mergekit, by_reference
from tests.support.cases import Case, all_cases
from tests.support.checkpoints import load_tensors, weights_of
from tests.support.families import save_family, text_for
from tests.support.merges import config_text, run_mergekit, run_mergeplan
from tests.support.settings import DEMO_POOL, FULL
from tests.support.shares import paired

CASES = [c for c in all_cases(rounds=50 if FULL else 0) if c.method in mergekit_plugin.METHODS]
BREADTH = {"weight": 0.7, "density": 0.6}


@pytest.fixture
def usage():
    yield mergekit_plugin.register()
    mergekit_plugin.unregister()


def merge(tensors, method="task_arithmetic", **parameters):
    """mergekit on tensors, the first of which is the base."""
    from mergekit.merge_methods import merge_tensors

    parameters = {"weight": 0.7, **parameters}
    return merge_tensors(tensors, method, base_index=0, name="w", parameters=parameters)


def some_tensors(shape=(6, 40), dtype=torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(shape, generator=generator)
    moved = (base + 0.1 * torch.randn(shape, generator=generator) for _ in range(2))
    return [tensor.to(dtype) for tensor in (base, *moved)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_equals_the_reference(case: Case, usage, monkeypatch):
    monkeypatch.setattr(torch, "initial_seed", lambda: 3)
    found = by_mergekit(case)
    for name, expected in by_reference(case, seed=3).items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert usage.native == len(found)


@pytest.mark.parametrize(
    ("method", "top"),
    paired(list(mergekit_plugin.METHODS), [{}, {"dtype": "float32", "out_dtype": "bfloat16"}]),
    ids=str,
)
def test_a_merge_of_real_models_has_the_tensors_of_mergeplan(method, top, usage, tmp_path):
    known = METHODS[method].options
    text = config_text(
        method,
        [DEMO_POOL / name for name in ("html", "json", "perl")],
        base=DEMO_POOL / "base",
        parameters={key: value for key, value in BREADTH.items() if key in known},
        **top,
    )
    run_mergekit(text, tmp_path / "theirs", random_seed=7)
    run_mergeplan(text, tmp_path / "ours", seed=7)
    assert weights_of(tmp_path / "theirs") == weights_of(tmp_path / "ours")
    assert usage.native == len(load_tensors(tmp_path / "ours"))
    assert not usage.original


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
def test_class_a_merges_are_mergekits_own(method, tmp_path):
    base, experts = save_family(tmp_path, "llama", "float32")
    text = text_for(method, base, experts, "gradient")
    run_mergekit(text, tmp_path / "own")
    usage = mergekit_plugin.register()
    try:
        run_mergekit(text, tmp_path / "ours")
    finally:
        mergekit_plugin.unregister()
    assert weights_of(tmp_path / "ours") == weights_of(tmp_path / "own")
    assert usage.native == len(load_tensors(tmp_path / "ours"))


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_threads_change_nothing(method, usage):
    # More than 2^24 elements: several workers inside one tensor.
    tensors = some_tensors((2050, 8200), torch.bfloat16)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(merge(tensors, method, density=0.4))
    torch.set_num_threads(1)
    assert torch.equal(*results)
    assert usage.native == 2


def transposed(tensors):
    return [tensors[0], tensors[1].T.contiguous().T, tensors[2]]


def with_nan(tensors):
    tensors[1][2, 3] = float("nan")
    return tensors


def recording(tensors):
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (transposed, "not contiguous"),
        (lambda tensors: [tensor.double() for tensor in tensors], "float64"),
        (lambda tensors: tensors[:1], "there is nothing to merge"),
        (with_nan, "values that the core refuses"),
        (recording, "it records gradients"),
    ],
    ids=["strides", "float64", "no experts", "nan", "gradients"],
)
def test_what_the_core_cannot_take_is_mergekits(change, reason, usage):
    tensors = change(some_tensors())
    found = merge(tensors)
    assert usage.native == 0
    assert usage.original == {reason: 1}
    assert reason in usage.summary()
    mergekit_plugin.unregister()
    expected = merge(tensors)
    assert found.requires_grad == expected.requires_grad
    assert torch.equal(found.nan_to_num(9.0), expected.nan_to_num(9.0))


def test_tensors_on_another_device_are_mergekits():
    from mergekit.merge_methods import TensorGroup

    from mergeplan.mergekit_plugin.arithmetic import why_not

    group = TensorGroup.from_tensors([torch.empty(3, device="meta")])
    assert why_not("linear", group, {}, torch.float32, None) == "on meta"


def test_options_that_only_mergekit_has_a_meaning_for_are_its_own(usage):
    tensors = some_tensors()
    found = merge(tensors, "ties", density=1.5)
    nan = merge(tensors, "linear", weight=float("nan"))
    assert usage.original == {"density is out of range": 1, "weight is not finite": 1}
    mergekit_plugin.unregister()
    assert torch.equal(found, merge(tensors, "ties", density=1.5))
    assert nan.isnan().all()
    mergekit_plugin.register()
    with pytest.raises(ValueError, match="Epsilon"):
        merge(tensors, "della", density=0.9, epsilon=0.2)


def test_parameters_of_a_model_are_merged_where_nothing_is_recorded(usage):
    tensors = [torch.nn.Parameter(tensor) for tensor in some_tensors()]
    with torch.no_grad():
        found = merge(tensors)
    assert usage.native == 1
    assert not found.requires_grad


def test_a_state_dict_goes_partly_to_the_core_and_partly_to_mergekit(usage):
    from mergekit.merge_methods import merge_state_dicts

    dtypes = {"a": torch.float32, "b": torch.float64, "c": torch.bfloat16}
    models = [{key: some_tensors()[i].to(dtype) for key, dtype in dtypes.items()} for i in range(3)]
    options = {"parameters": {"weight": [0.5, 0.25, 0.25]}}
    found = merge_state_dicts(models, "linear", **options)
    assert (usage.native, usage.original) == (2, {"float64": 1})
    mergekit_plugin.unregister()
    expected = merge_state_dicts(models, "linear", **options)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


def test_masks_follow_torchs_seed_and_not_the_order_of_work(usage):
    tensors = some_tensors()
    torch.manual_seed(5)
    first = merge(tensors, "dare_linear", density=0.5)
    merge(some_tensors((3, 3)), "dare_linear", density=0.5)
    assert torch.equal(merge(tensors, "dare_linear", density=0.5), first)
    torch.manual_seed(6)
    assert not torch.equal(merge(tensors, "dare_linear", density=0.5), first)


def test_registering_twice_changes_nothing_and_unregistering_gives_the_methods_back():
    from mergekit.merge_methods import registry

    before = dict(registry._METHODS)
    usage = mergekit_plugin.register()
    assert mergekit_plugin.register() is usage
    changed = {name for name, method in registry._METHODS.items() if method is not before[name]}
    assert changed == set(mergekit_plugin.METHODS)
    assert all(registry._METHODS[name].spec == before[name].spec for name in before)
    mergekit_plugin.unregister()
    mergekit_plugin.unregister()
    assert dict(registry._METHODS) == before


def test_without_mergekit_the_error_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(MissingInputError, match="not installed") as caught:
        mergekit_plugin.register()
    assert caught.value.hint == "pip install 'mergeplan[mergekit]'"
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1.4")
    with pytest.raises(InputError, match=r"needs mergekit 0\.1\.5, found 0\.1\.4"):
        mergekit_plugin.register()
