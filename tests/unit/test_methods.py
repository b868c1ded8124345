"""The table of methods is mergekit's, and configs of every method are checked and lowered."""

import json
from typing import get_args

import pytest

from mergeplan.config.config import parse_config
from mergeplan.config.methods import METHODS
from mergeplan.errors import InputError
from mergeplan.planning.document import to_json
from mergeplan.planning.planner import build_plan


def spec_of(name):
    from mergekit.merge_methods.registry import get

    return get(name).spec


def test_there_are_mergekits_methods_and_no_others():
    from mergekit.merge_methods.registry import registered_methods

    assert set(METHODS) == {method.spec.name for method in registered_methods()}


@pytest.mark.parametrize("name", METHODS)
def test_options_are_mergekits_in_name_type_scope_and_default(name):
    from mergekit.merge_methods.base import MISSING, ParameterScope

    method, spec = METHODS[name], spec_of(name)
    assert set(method.options) == {parameter.name for parameter in spec.parameters}
    per_input = {ParameterScope.INPUT: "none", ParameterScope.NON_BASE: ("required", "optional")}
    for parameter in spec.parameters:
        option = method.options[parameter.name]
        kinds = get_args(parameter.value_type) or (parameter.value_type,)
        assert option.kind in kinds
        assert option.may_be_unset == (type(None) in kinds)
        assert option.per_input == (parameter.scope != ParameterScope.SHARED)
        if option.per_input:
            assert method.base in per_input[parameter.scope]
        assert option.required == (parameter.default is MISSING)
        if not option.required:
            assert option.default == parameter.default


@pytest.mark.parametrize("name", METHODS)
def test_base_and_number_of_inputs_are_mergekits(name):
    method, spec = METHODS[name], spec_of(name)
    policy = {"required": "required", "optional": "optional", "ignored": "none"}
    assert method.base == policy[spec.contract.base.value]
    contract = spec.contract
    with_base = int(method.base == "required")
    assert method.min_inputs == (contract.min_non_base or contract.min_inputs - with_base)
    most = contract.max_non_base
    if most is None and contract.max_inputs is not None:
        most = contract.max_inputs - with_base
    assert method.max_inputs == most


@pytest.mark.parametrize("name", METHODS)
def test_titles_are_mergekits(name):
    method, spec = METHODS[name], spec_of(name)
    assert (method.title, method.reference_url) == (spec.pretty_name, spec.reference_url)


def text_for(name: str, models: str, base: str | None = "base", parameters: str = "{}") -> str:
    lines = [f"merge_method: {name}", f"models: [{models}]", f"parameters: {parameters}"]
    return "\n".join([*lines, f"base_model: {base}"] if base else lines)


A, B, C = (f"{{model: {name}, parameters: {{weight: 1}}}}" for name in "abc")
PLAIN_A, PLAIN_B = "{model: a}", "{model: b}"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            text_for("slerp", f"{PLAIN_A}, {PLAIN_B}", parameters="{t: 0.5}"),
            "`slerp` merges exactly 1 model besides the base, found 2",
            "take models out",
        ),
        (
            text_for("slerp", "{model: base}", parameters="{t: 0.5}"),
            "`slerp` merges exactly 1 model besides the base, found 0",
            "add models",
        ),
        (text_for("slerp", PLAIN_A, base=None), "`slerp` needs a `base_model`", "base_model"),
        (text_for("slerp", PLAIN_A), "`slerp` needs `t`", "parameters: {t: ...}"),
        (text_for("nearswap", PLAIN_A), "`nearswap` needs `t`", "parameters: {t: ...}"),
        (
            text_for("nearswap", PLAIN_A, parameters="{t: -1}"),
            "`parameters.t`: expected a number of at least 0, found -1",
            None,
        ),
        (
            text_for("nuslerp", f"{A}, {B}, {C}", base=None),
            "`nuslerp` merges exactly 2 models, found 3",
            "name it as `base_model`",
        ),
        (text_for("nuslerp", A), "exactly 2 models besides the base, found 1", "add models"),
        (text_for("model_stock", PLAIN_A), "at least 2 models besides the base, found 1", "add"),
        (
            text_for("passthrough", f"{PLAIN_A}, {PLAIN_B}", base=None),
            "`passthrough` merges exactly 1 model, found 2",
            "take models out",
        ),
        (text_for("passthrough", PLAIN_A), "exactly 1 model, found 2", "leave it out"),
        (
            text_for("karcher", PLAIN_A, base=None, parameters="{max_iter: 2.5}"),
            "`parameters.max_iter`: expected a whole number, found 2.5",
            None,
        ),
        (
            text_for("karcher", PLAIN_A, base=None, parameters="{max_iter: -1}"),
            "expected a number of at least 0, found -1",
            None,
        ),
        (
            text_for("karcher", PLAIN_A, base=None, parameters="{max_iter: [1, 2]}"),
            "expected one whole number, found a gradient",
            "interpolate",
        ),
        (
            text_for("sce", PLAIN_A, parameters="{select_topk: 20}"),
            "`parameters.select_topk`: expected a number from 0 to 1, found 20",
            None,
        ),
        (
            text_for("della", A, parameters="{epsilon: 0.7}"),
            "expected a number from 0 to 0.5, found 0.7",
            None,
        ),
        (
            text_for("ram", PLAIN_A, parameters="{epsilom: 1}"),
            "unknown option `parameters.epsilom`",
            "`epsilon`",
        ),
        (
            text_for("slerp", "{model: a, parameters: {t: 0.5}}", parameters="{t: 0.5}"),
            "one value for the whole merge",
            "top level",
        ),
        (
            text_for("passthrough", "{model: a, parameters: {scale: large}}", base=None),
            "`models[0].parameters.scale`: expected a number, found `large`",
            None,
        ),
    ],
)
def test_what_does_not_fit_the_method_is_named(text, message, hint):
    with pytest.raises(InputError) as caught:
        parse_config(text)
    assert message in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_the_hint_for_an_unknown_method_lists_them_all():
    with pytest.raises(InputError) as caught:
        parse_config("merge_method: averaging of weights\nmodels: [{model: a}]")
    assert all(name in (caught.value.hint or "") for name in METHODS)


def test_a_base_is_compared_with_only_where_the_method_has_one():
    assert parse_config(text_for("multislerp", f"{A}, {B}")).compared_with == "base"
    assert parse_config(text_for("multislerp", f"{A}, {B}", base=None)).compared_with is None
    config = parse_config(text_for("karcher", f"{PLAIN_A}, {PLAIN_B}"))
    assert (config.compared_with, config.donor) == (None, "base")
    assert [model.path for model in config.models] == ["a", "b", "base"]


@pytest.fixture
def merge_of(small_models):
    """The `merge` of tensor `x` for a method, its inputs being `a` and perhaps `b`."""

    def build(name, models=("a", "b"), base=True, parameters="{}", top=""):
        entries = ", ".join(f"{{model: {small_models / model}}}" for model in models)
        base_path = str(small_models / "base") if base else None
        text = text_for(name, entries, base_path, parameters) + f"\n{top}"
        plan = build_plan(parse_config(text), seed=0, max_shard_bytes=10**9)
        (job,) = [job for job in plan.data.jobs if job.tensor == "x"]
        return json.loads(to_json(job.merge))

    return build


X = [{"model": 0, "tensor": "x"}, {"model": 1, "tensor": "x"}, {"model": 2, "tensor": "x"}]


@pytest.mark.parametrize(
    ("name", "n_models", "parameters", "method"),
    [
        ("slerp", 1, "{t: 0.3}", {"t": 0.3}),
        ("nearswap", 1, "{t: 0.001}", {"t": 0.001}),
        ("arcee_fusion", 1, "{}", {}),
        ("nuslerp", 2, "{weight: 3}", {"t": 0.5, "along": "tensor"}),
        ("nuslerp", 2, "{weight: 0}", {"t": 0.5, "along": "tensor"}),
        (
            "nuslerp",
            2,
            "{weight: 1, nuslerp_flatten: false}",
            {"t": 0.5, "along": "last"},
        ),
        (
            "nuslerp",
            2,
            "{weight: 1, nuslerp_flatten: false, nuslerp_row_wise: true}",
            {"t": 0.5, "along": "first"},
        ),
        (
            "multislerp",
            2,
            "{weight: 2, eps: 1e-6}",
            {"weights": [2.0, 2.0], "normalize": True, "eps": 1e-6},
        ),
        ("model_stock", 2, "{filter_wise: true}", {"filter_wise": True}),
        ("sce", 2, "{select_topk: 0.1}", {"density": 0.1}),
        ("ram", 2, "{}", {"epsilon": 1e-5}),
        ("ramplus_tl", 2, "{r: 0.3}", {"r": 0.3, "alpha": 0.2, "epsilon": 1e-5}),
    ],
)
def test_groups_are_lowered_to_the_methods_own_fields(name, n_models, parameters, method, merge_of):
    found = merge_of(name, ("a", "b")[:n_models], parameters=parameters)
    assert found == {
        "kind": "group",
        "dtype": "float32",
        "method": {"name": name, **method},
        "base": X[n_models],
        "inputs": X[:n_models],
    }


def test_karcher_takes_the_base_as_an_input(merge_of):
    found = merge_of("karcher", parameters="{max_iter: 3}")
    assert found["method"] == {"name": "karcher", "max_iter": 3, "tol": 1e-5}
    assert (found["base"], found["inputs"]) == (None, X)


def test_a_mean_of_one_is_that_one(merge_of):
    copied = {"kind": "copy", "inputs": X[:1]}
    assert merge_of("multislerp", ("a",), parameters="{weight: 1}") == copied
    assert merge_of("karcher", ("a",), base=False) == copied


def test_passthrough_copies_scales_or_casts(merge_of):
    assert merge_of("passthrough", ("a",), base=False) == {"kind": "copy", "inputs": X[:1]}
    scaled = merge_of("passthrough", ("a",), base=False, parameters="{scale: 2}")
    assert scaled["method"] == {"name": "passthrough", "scale": 2.0}
    cast = merge_of("passthrough", ("a",), base=False, top="out_dtype: bfloat16")
    assert (cast["kind"], cast["method"]["scale"]) == ("group", None)
    through = merge_of("passthrough", ("a",), base=False, top="dtype: float16\nout_dtype: float32")
    assert (through["kind"], through["dtype"]) == ("group", "float16")
    filtered = "{scale: [{filter: y, value: 2}]}"
    assert merge_of("passthrough", ("a",), base=False, parameters=filtered)["kind"] == "copy"


def test_deltas_carry_what_their_sparsification_needs(merge_of):
    found = merge_of("breadcrumbs", parameters="{weight: 1, density: 0.5, gamma: 0.1}")
    assert found["sparsify"] == "outliers"
    assert found["inputs"][0] == {**X[0], "weight": 1.0, "density": 0.5, "gamma": 0.1}
    found = merge_of("della", parameters="{weight: 1, density: 0.5}")
    assert (found["sparsify"], found["consensus"]) == ("ranks", True)
    assert found["inputs"][1] == {**X[1], "weight": 1.0, "density": 0.5, "epsilon": 0.15}


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_dellas_probabilities_must_be_probabilities(density, merge_of):
    with pytest.raises(
        InputError, match=r"a`, tensor `x`: expected `density` - `epsilon`"
    ) as caught:
        merge_of("della", parameters=f"{{weight: 1, density: {density}}}")
    assert "below 0.1" in (caught.value.hint or "")
    for whole in (0, 1):
        merge_of("della", parameters=f"{{weight: 1, density: {whole}}}")


def test_a_required_option_that_no_filter_matches_is_named(merge_of):
    with pytest.raises(InputError, match="`t` is missing for tensor `x`") as caught:
        merge_of("slerp", ("a",), parameters="{t: [{filter: mlp, value: 0.5}]}")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("give the merge `parameters: {t: ...}`")
