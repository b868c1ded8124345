"""The output's config.json, which fits the output's rows and layers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.config.config import MergeConfig
from mergeplan.planning.rows import RowMap, embedding_rows
from mergeplan.planning.slicing import sliced_config

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
    if rows is not None:
        made = with_vocabulary(made, embedding_rows(donor), rows)
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


def _changed(config: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A copy in which `change` decides every value that is no mapping."""
    return {
        key: _changed(value, change) if isinstance(value, Mapping) else change(key, value)
        for key, value in config.items()
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
