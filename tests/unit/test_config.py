"""mergekit's YAML is read strictly: what it would ignore is an error that helps."""

import pytest

from mergeplan.config.config import parse_config
from mergeplan.errors import InputError

GOOD = """
merge_method: ties
base_model: base
models:
  - model: a
    parameters: {weight: 1.0, density: 0.5}
  - model: b
    parameters: {weight: 1e-5}
parameters: {normalize: true, lambda: 0.5, int8_mask: true}
dtype: torch.bfloat16
out_dtype: float16
"""


def test_a_good_config_is_read_in_full():
    config = parse_config(GOOD)
    assert config.method.name == "ties"
    assert [model.path for model in config.models] == ["a", "b", "base"]
    assert config.donor == "base"
    assert (config.dtype, config.out_dtype) == ("bfloat16", "float16")
    assert config.parameters == {"normalize": True, "lambda": 0.5, "int8_mask": True}


def test_a_number_that_yaml_reads_as_text_is_a_number():
    # YAML 1.1 wants a dot in `1e-5`.
    assert parse_config(GOOD).models[1].parameters["weight"] == 1e-5


def test_a_listed_base_stays_where_it_is():
    text = GOOD.replace("  - model: a", "  - model: base\n  - model: a")
    assert [model.path for model in parse_config(text).models] == ["base", "a", "b"]


def test_without_a_base_the_first_model_donates():
    text = "merge_method: linear\nmodels: [{model: b, parameters: {weight: 1}}, {model: a}]"
    assert parse_config(text).donor == "b"


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("merge_method: ties", "merge_method: tiez", "unknown method `tiez`", "`ties`"),
        ("merge_method: ties", "", "`merge_method` is missing", "ties"),
        ("base_model: base", "", "needs a `base_model`", "base_model"),
        ("base_model: base", "base_modle: base", "unknown key `base_modle`", "`base_model`"),
        ("parameters: {normalize", "normalize: true\nparameters: {normalize", "top level", "under"),
        ("density: 0.5", "densty: 0.5", "models[0].parameters.densty", "`density`"),
        ("density: 0.5", "density: 20", "from 0 to 1, found 20", None),
        ("density: 0.5", "density: -0.1", "from 0 to 1, found -0.1", None),
        ("density: 0.5", "density: [0.5, 1.5]", "density[1]`: expected a number from 0 to 1", None),
        ("density: 0.5", "density: []", "an empty list", None),
        ("density: 0.5", "density: {filter: mlp}", "expected `value`", None),
        ("density: 0.5", "density: {value: 0.5, filtr: mlp}", "unknown key", "`filter`"),
        ("density: 0.5", "normalize: true", "one value for the whole merge", "top level"),
        ("    parameters: {weight: 1.0, density: 0.5}", "    weight: 1.0", "does nothing", "under"),
        ("weight: 1.0", "weight: no", "expected a number, found `False`", None),
        ("weight: 1.0", "weight: .nan", "expected a finite number", None),
        ("weight: 1.0", "weight: heavy", "expected a number, found `heavy`", None),
        ("normalize: true", "normalize: 2", "expected true or false, found `2`", None),
        ("torch.bfloat16", "bf16", "cannot merge in `bf16`", "float16"),
        ("- model: b", "- model: a", "`a` is listed twice", None),
        ("- model: b", "- model: {path: b}", "expected a path, found a mapping", None),
        ("models:", "slices: []\nmodels:", "expected one of `models`, `slices` and", None),
        ("dtype: torch.bfloat16", "dtype: float32\ndtype: float16", "`dtype` stands twice", None),
        ("models:", "models: [", "invalid YAML: line 5, column 3: ", None),
        ("    parameters", "\tparameters", "invalid YAML: line 6, column 1: found a tab", "spaces"),
    ],
)
def test_what_is_wrong_is_named_with_a_way_out(old, new, message, hint):
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        parse_config(GOOD.replace(old, new, 1))
    assert message in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "[]", "just words", "models: 3\nmerge_method: ties"])
def test_text_that_is_no_config_is_refused(text):
    with pytest.raises(InputError):
        parse_config(text)


def test_an_option_of_another_method_is_refused():
    with pytest.raises(InputError, match="unknown option `parameters.density`") as caught:
        parse_config(
            "merge_method: linear\nmodels: [{model: a}]\nparameters: {weight: 1, density: 0.5}"
        )
    assert caught.value.hint == "`linear` has: weight, normalize"
