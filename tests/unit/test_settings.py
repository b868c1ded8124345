"""Gradients, filters and precedence give the values that mergekit computes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergeplan.checkpoints.layers import depths_of, layer_of
from mergeplan.config.config import parse_config
from mergeplan.config.resolve import resolve, setting_at
from mergeplan.errors import InputError


def config(model: str, shared: str = "{}"):
    return parse_config(
        "merge_method: ties\nbase_model: base\n"
        f"models: [{{model: a, parameters: {model}}}]\nparameters: {shared}"
    )


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.3.mlp.experts.7.w1.weight", 3),
        ("transformer.h.10.attn.c_attn.weight", 10),
        ("bert.encoder.layer.0.output.dense.bias", 0),
        ("gpt_neox.layers.2.x", 2),
        ("model.embed_tokens.weight", None),
        ("model.norm.weight", None),
    ],
)
def test_the_layer_is_read_off_the_name(name, layer):
    found = layer_of(name)
    assert (found[1] if found else None) == layer


def test_tensors_outside_the_layers_take_the_first_value():
    setting = config("{weight: 1, density: [0.2, 0.8]}").models[0].parameters["density"]
    outside = ["lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"]
    depths = depths_of([*outside, *(f"model.layers.{i}.x" for i in range(4))])
    for name in outside:
        assert setting_at(setting, name, depths[name]) == 0.2
    assert setting_at(setting, "x", depths["model.layers.3.x"]) == 0.8


def test_a_model_of_one_layer_takes_the_last_value():
    assert depths_of(["model.layers.0.x"]) == {"model.layers.0.x": 1.0}


def test_each_stack_of_layers_has_a_gradient_of_its_own():
    names = [f"visual.blocks.{i}.x" for i in range(4)] + [f"model.layers.{i}.x" for i in range(2)]
    assert list(depths_of(names).values()) == [0, 1 / 3, 2 / 3, 1, 0, 1]


def test_the_first_filter_that_matches_wins():
    parameters = "{weight: [{filter: mlp, value: 2}, {filter: '*', value: 3}, {value: 4}]}"
    weight = config(parameters).models[0].parameters["weight"]
    assert setting_at(weight, "model.layers.0.mlp.up_proj.weight", 0.0) == 2
    assert setting_at(weight, "model.norm.weight", 0.0) == 3


def test_a_model_without_a_match_falls_back_to_the_merge_then_to_the_default():
    found = config("{weight: [{filter: mlp, value: 2}]}", "{weight: 5}")
    scopes = (found.models[0].parameters, found.parameters)
    assert resolve(found.method, "weight", scopes, "norm", 0.0) == 5
    assert resolve(found.method, "density", scopes, "norm", 0.0) == 1.0
    alone = config("{weight: [{filter: mlp, value: 2}]}")
    with pytest.raises(InputError, match="`weight` is missing for model `a`, tensor `norm`"):
        resolve(alone.method, "weight", (alone.models[0].parameters,), "norm", 0.0, "a")


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    depth=st.floats(0, 1),
)
def test_gradients_equal_mergekits(values, depth):
    from mergekit.config import evaluate_setting

    found = config(f"{{weight: 1, density: {values}}}").models[0].parameters["density"]
    assert setting_at(found, "x", depth) == evaluate_setting("x", values, depth, validate=float)


@given(values=st.lists(st.booleans(), min_size=1, max_size=6), depth=st.floats(0, 1))
def test_switches_step_where_mergekits_do(values, depth):
    from mergekit.config import evaluate_setting

    text = str(values).lower()
    found = config("{weight: 1}", f"{{normalize: {text}}}").parameters["normalize"]
    assert setting_at(found, "x", depth) == evaluate_setting("x", values, depth, validate=bool)
