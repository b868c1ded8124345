"""The output's config.json, which fits the output's rows and layers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.head_names import embedding_of, heads_in
from mergeplan.checkpoints.passed_over import text_layer
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError
from mergeplan.planning.rows import RowMap, embedding_rows
from mergeplan.planning.sliced_config import sliced_config

# How many layers of multi-token prediction there are, by any architecture's word for it.
_PREDICTION_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
_BEHIND = re.compile("multi-token prediction")
# Keys that hold the number of a token, or several.
_TOKEN = re.compile(r"_token_(id|ids|index)$")


def config_for(
    config: MergeConfig,
    checkpoints: Sequence[Checkpoint],
    donor: Checkpoint,
    rows: RowMap | None,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The donor's `config.json` for the layers and rows of the output; empty where it has none.

    Args:
        rows: Those of the donor's embedding in the output, where a tokenizer option or a cut
            decided them.
        left_out: Tensors that the output lacks, each with the reason.
    """
    made = sliced_config(config, checkpoints, donor) if config.is_sliced else donor.config
    if rows is not None and made:
        made = _counting(with_vocabulary(made, embedding_rows(donor), rows), rows.n_rows)
    if any(_BEHIND.search(reason) for reason in left_out.values()):
        made = _changed(made, lambda key, value: 0 if key in _PREDICTION_LAYERS else value)
    return made


def with_vocabulary(config: Mapping[str, Any], old: int | None, rows: RowMap) -> dict[str, Any]:
    """A `config.json`, or a generation config, for other rows.

    Their number stands at the top or in the part that describes the language model, or in both.
    Tokens with a role (the end of a text, an image's place) keep it under their new numbers, where
    mergekit leaves the old ones.

    Args:
        old: Rows of the donor's embedding.
        rows: Those of the donor's embedding in the output.
    """
    numbers = rows.new_numbers()

    def change(key: str, value: Any) -> Any:
        if key == "vocab_size" and value == old:
            return rows.n_rows
        if not _TOKEN.search(key):
            return value
        if isinstance(value, list):
            return [numbers.get(one, one) if _is_number(one) else one for one in value]
        return numbers.get(value, value) if _is_number(value) else value

    return _changed(config, change)


def _counting(config: dict[str, Any], n_rows: int) -> dict[str, Any]:
    """A config that says how many tokens there are; left out, it is the architecture's default."""
    text = config.get("text_config")
    if "vocab_size" in config or (isinstance(text, Mapping) and "vocab_size" in text):
        return config
    if isinstance(text, Mapping):
        return {**config, "text_config": {**text, "vocab_size": n_rows}}
    return {**config, "vocab_size": n_rows}


def _changed(config: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A copy in which `change` decides every value that is no mapping."""
    return {
        key: _changed(value, change) if isinstance(value, Mapping) else change(key, value)
        for key, value in config.items()
    }


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def check_config(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Hold a `config.json` against the output's tensors.

    Args:
        shapes: Of the output's tensors, by name.

    Returns:
        Warnings where it counts layers or a head that are not there: transformers makes them up.

    Raises:
        InputError: It counts more tokens than the embedding has rows: transformers cannot load it.
    """
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    name = embedding_of("lm_head.weight", shapes)
    rows, asked = shapes[name][:1] if name else (), text.get("vocab_size")
    if rows and _is_number(asked) and rows[0] < asked:
        raise InputError(
            f"config.json: expected `vocab_size` of at most {rows[0]}, the rows of `{name}`, found"
            f" {asked}: the output could not be loaded",
            "the donor's config.json and its weights do not belong together: mend `vocab_size`",
        )
    found = []
    layers = {text_layer(one) for one in shapes} - {None}
    asked = text.get("num_hidden_layers")
    if layers and _is_number(asked) and len(layers) < asked:
        found.append(
            f"config.json: `num_hidden_layers` is {asked}, and the output has {len(layers)}"
            " layers: transformers fills the others with random values"
        )
    untied = name and config.get("tie_word_embeddings") is False
    if untied and _speaks(config) and not heads_in(shapes):
        found.append(
            "config.json ties no head to the embedding, and the output has none of a known name:"
            " transformers may fill it with random values"
        )
    return found


def _speaks(config: Mapping[str, Any]) -> bool:
    """Whether a model is one that makes words, by its classes."""
    classes = config.get("architectures")
    return isinstance(classes, list) and any("CausalLM" in str(one) for one in classes)
