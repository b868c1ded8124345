"""What a config cannot say, each fault named by its key: slices, modules, tokenizers."""

import pytest

from mergeplan.config.config import parse_config
from mergeplan.errors import InputError

TOP = "merge_method: linear\nparameters: {weight: 1}\n"
MODELS = f"{TOP}models: [{{model: a}}]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{TOP}modules: 5", "`modules`: expected a mapping of modules, found `5`"),
        (f"{TOP}modules: {{text: 5}}", "`modules.text`: expected `models` or `slices`, found `5`"),
        (f"{TOP}modules: {{text: {{}}}}", "`modules.text`: expected `models` or `slices`"),
        (
            f"{TOP}modules: {{text: {{models: [{{model: a}}], slices: []}}}}",
            "`modules.text`: expected `models` or `slices`, found both",
        ),
        (f"{TOP}slices: 3", "`slices`: expected a list of slices"),
        (f"{TOP}slices: []", "`slices`: expected a list of slices"),
        (f"{TOP}slices: [4]", "`slices[0]`: expected `sources`, found `4`"),
        (
            f"{MODELS}parameters: 4".replace("parameters: {weight: 1}\n", ""),
            "`parameters`: expected a mapping",
        ),
        (
            f"{TOP}slices: [{{sources: [{{model: a, layer_range: [0]}}]}}]",
            "`slices[0].sources[0].layer_range`: expected [FIRST, END]",
        ),
        (
            f"{TOP}slices: [{{sources: [{{model: a, layer_range: [0, true]}}]}}]",
            "layer_range`: expected [FIRST, END]",
        ),
        (f"{MODELS}tokenizer: 3", "`tokenizer`: expected a mapping, found `3`"),
        (f"{MODELS}tokenizer: {{sauce: union}}", "unknown key `tokenizer.sauce`"),
        (f"{MODELS}tokenizer: {{pad_to_multiple_of: 0}}", "`tokenizer.pad_to_multiple_of`"),
        (f"{MODELS}tokenizer: {{tokens: [x]}}", "`tokenizer.tokens`: expected a mapping"),
        (f"{MODELS}tokenizer: {{tokens: {{x: {{}}}}}}", "`tokenizer.tokens.x"),
        (
            f"{MODELS}tokenizer: {{tokens: {{x: {{source: a, force: 3}}}}}}",
            "force`: expected true or",
        ),
        (
            f"{MODELS}tokenizer: {{tokens: {{x: {{source: {{kind: model_token, model: a}}}}}}}}",
            "expected one of `token` and `token_id`",
        ),
        (
            f"{MODELS}tokenizer:"
            " {tokens: {x: {source: {kind: model_token, model: a, token_id: one}}}}",
            "token_id`: expected a whole number, found `one`",
        ),
    ],
)
def test_a_fault_is_named_by_its_key(text, words):
    with pytest.raises(InputError) as caught:
        parse_config(text)
    assert words in caught.value.message


def test_what_mergekit_ignores_is_said():
    config = parse_config(
        f"{TOP}slices: [{{residual_weight: 0.5, sources: [{{model: a, layer_range: [0, 2]}}]}}]"
    )
    assert any("`slices[0].residual_weight` has no effect" in text for text in config.warnings)
