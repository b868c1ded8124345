"""The output's config.json, which fits the output's rows and layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.config.config import MergeConfig
from mergeplan.planning.document import Job
from mergeplan.planning.rows import embedding_rows
from mergeplan.planning.slicing import sliced_config


def config_for(
    config: MergeConfig,
    checkpoints: Sequence[Checkpoint],
    donor: Checkpoint,
    jobs: Sequence[Job],
    n_rows: int | None,
) -> dict[str, Any]:
    """The donor's `config.json` for the layers and rows of the output; empty where it has none.

    Args:
        n_rows: Rows of the output's embedding, where a tokenizer option or a cut decided it.
    """
    made = sliced_config(config, checkpoints, donor) if config.is_sliced else donor.config
    if n_rows is None or not made:
        return made
    return with_vocabulary(made, embedding_rows(donor), n_rows)


def with_vocabulary(config: Mapping[str, Any], old: int | None, new: int) -> dict[str, Any]:
    """A `config.json` for another number of rows.

    `vocab_size` stands at the top or in the part that describes the language model, or in both.

    Args:
        old: Rows of the donor's embedding.
    """
    made: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            made[key] = with_vocabulary(value, old, new)
        elif key == "vocab_size" and value == old:
            made[key] = new
        else:
            made[key] = value
    return made
