"""Where mergekit 0.1.5 stops, or gives NaN, on tensors that mergeplan merges."""

import numpy as np
import pytest
import torch

from tests.support.backends import by_mergekit, by_native, by_reference, values
from tests.support.cases import TORCH_DTYPES, Case
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergeplan

FROM_MERGEKIT = (ValueError, IndexError, RuntimeError)


def case_of(method, dtype, base, experts, per_input=None, **parameters) -> Case:
    def tensors(numbers):
        return {"x": torch.tensor(numbers, dtype=torch.float32).to(TORCH_DTYPES[dtype])}

    defaults = {"normalize": False, "rescale": False, "lambda": 1.0, "int8_mask": False}
    if method.startswith("della"):
        parameters = {**defaults, **parameters}
    return Case(
        method,
        dtype,
        len(experts),
        per_input or {},
        parameters,
        seed=0,
        based=base is not None,
        make=lambda: (tensors(base) if base is not None else {}, tuple(map(tensors, experts))),
    )


def multislerp(dtype, base, experts, weights=None):
    weights = weights or (1.0,) * len(experts)
    options = {"normalize_weights": True, "eps": 1e-8}
    return case_of("multislerp", dtype, base, experts, {"weight": weights}, **options)


CANCELLING = [[1.0, 0.0], [-1.0, 0.0], [0.5, 0.0]]
DELLA = {"weight": (1.0,), "density": (0.5,), "epsilon": (0.1,)}
CASES = {
    "multislerp of nothing": (multislerp("float32", None, [[], [], []]), []),
    # A tensor that no expert has moved: there is no direction to go.
    "multislerp of frozen tensors": (
        multislerp("float32", [1.0, 2.0], [[1.0, 2.0]] * 3),
        [1.0, 2.0],
    ),
    "multislerp of frozen tensors, float16": (
        multislerp("float16", [1.0, 2.0], [[1.0, 2.0]] * 2),
        [1.0, 2.0],
    ),
    # mergekit's eps is zero in float16, and so is the length of a tangent between equal directions.
    "multislerp of one element, float16": (multislerp("float16", None, [[1.0], [3.0]]), [2.0]),
    "arcee_fusion of nothing": (case_of("arcee_fusion", "float32", [], [[]]), []),
    # The reciprocal of a small distance is infinite in float16, and 0 · ∞ is NaN.
    "nearswap of nothing at all, float16": (
        case_of("nearswap", "float16", [1.0, 2.0], [[1.0, 2.5]], t=0.0),
        [1.0, 2.0],
    ),
    # An expert equal to the base: it shares nothing, and 0 / 0 is NaN.
    "ramplus_tl without epsilon": (
        case_of("ramplus_tl", "float32", [1.0], [[1.0], [3.0]], r=0.1, alpha=0.2, epsilon=0.0),
        [3.0],
    ),
    "della of nothing": (case_of("della", "float32", [], [[]], DELLA), []),
}


@pytest.mark.parametrize(("case", "expected"), CASES.values(), ids=CASES)
def test_mergekit_fails_and_the_reference_does_not(case, expected):
    try:
        theirs = by_mergekit(case)["x"]
        assert np.isnan(theirs).any()
    except FROM_MERGEKIT:
        pass
    np.testing.assert_array_equal(by_reference(case)["x"], np.asarray(expected))


@pytest.mark.parametrize(("case", "expected"), CASES.values(), ids=CASES)
def test_native_does_not_fail_either(case, expected, tmp_path):
    np.testing.assert_array_equal(by_native(case, tmp_path)["x"], np.asarray(expected))


def test_della_keeps_elements_of_rows_of_one_with_probability_density():
    delta = np.ones((4000, 1))
    case = case_of("della", "float32", np.zeros_like(delta).tolist(), [delta.tolist()], DELLA)
    with pytest.raises(RuntimeError):
        by_mergekit(case)
    kept = by_reference(case)["x"].mean()
    assert abs(kept - 0.5) < 4 * np.sqrt(0.25 / delta.size)


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_the_reference_refuses_directions_that_cancel(dtype):
    with pytest.raises(ValueError, match="cancel"):
        by_reference(multislerp(dtype, None, CANCELLING, (1.0, 2.0, 1.0)))


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_native_refuses_directions_that_cancel(dtype, tmp_path):
    from mergeplan.errors import MergeplanError

    case = multislerp(dtype, None, CANCELLING, (1.0, 2.0, 1.0))
    with pytest.raises(MergeplanError, match="`x`"):
        by_native(case, tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", ["arcee_fusion", "ramplus_tl"])
def test_results_have_the_working_dtype_where_mergekits_are_float32(method, dtype):
    from mergekit.merge_methods import merge_tensors

    options = {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5} if method == "ramplus_tl" else {}
    case = case_of(method, dtype, [1.0, 2.0, 3.0], [[1.5, 2.0, 3.1]], **options)
    tensors = [case.experts[0]["x"], case.base["x"]]
    theirs = merge_tensors(tensors, method, base_index=1)
    assert theirs.dtype == torch.float32
    rounded = values(theirs.to(TORCH_DTYPES[dtype]))
    np.testing.assert_array_equal(by_reference(case)["x"], rounded)


@pytest.mark.parametrize("method", ["della_linear", "dare_linear"])
def test_rescaling_in_float16_keeps_the_norm_beyond_float16s_range(method, tmp_path):
    # A sum of magnitudes above 65,504 is infinite in float16: mergekit on a GPU writes garbage.
    generator = torch.Generator().manual_seed(0)
    delta = (0.2 * torch.randn(700, 1000, generator=generator)).half()
    base = save_checkpoint(tmp_path / "base", {"x": torch.zeros_like(delta)})
    expert = save_checkpoint(tmp_path / "e", {"x": delta})
    parameters = {"weight": 1.0, "density": 0.5}
    text = config_text(method, [expert], base=base, parameters=parameters)
    run_mergeplan(text, tmp_path / "out")
    merged = load_tensors(tmp_path / "out")["x"].double()
    norm = delta.double().abs().sum().item()
    assert norm > 65_504
    assert merged.abs().sum().item() == pytest.approx(norm, rel=1e-3)
