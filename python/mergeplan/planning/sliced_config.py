"""The config.json of layers that were numbered anew, whose kinds it tells by their numbers.

Each kind of key is a list with an entry for each layer, a list of layers, the number of layers at
the front, or a period. Names are those of transformers' configurations. What can be said of the
output's layers is written; what cannot is refused, for transformers would make up the weights of
a layer that it takes for one of another kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.config.config import MergeConfig
from mergeplan.errors import InputError

# transformers refuses a list of another length.
_PER_LAYER = (
    "layer_types",
    "mlp_layer_types",
    "layers_block_type",
    "indexer_types",
    "moe_layer_freq",
    "no_rope_layers",
    "layer_rope_theta",
    "num_attention_heads_per_layer",
    "num_key_value_heads_per_layer",
)
# Numbers of layers; one that is empty says as much as none.
_LISTED = (
    "mlp_only_layers",
    "moe_layers",
    "attn_layer_indices",
    "full_attn_idxs",
    "cross_attention_layers",
    "hybrid_layer_ids",
    "local_layer_ids",
    "rope_scaling_layers",
)
# The layers before this number are of one kind; of Ernie's last key up to this number.
_AT_THE_FRONT = {
    "first_k_dense_replace": 0,
    "num_dense_layers": 0,
    "moe_layer_start_index": 0,
    "moe_layer_end_index": 1,
}
# Every so many layers one is of another kind, unless one of these lists says each layer's kind.
_PERIODS: dict[str, tuple[str, ...]] = {
    "decoder_sparse_step": (),
    "interleave_moe_layer_step": ("moe_layers",),
    "moe_layer_freq": ("mlp_layer_types",),
    "moe_layer_interval": (),
    "attn_layer_period": (),
    "expert_layer_period": (),
    "sliding_window_pattern": ("layer_types",),
    "_sliding_window_pattern": ("layer_types",),
    "full_attention_interval": ("layer_types",),
    "global_attn_every_n_layers": ("layer_types",),
    "layer_group_size": ("layer_types",),
    "no_rope_layer_interval": ("no_rope_layers",),
}
BY_LAYER = (*_PER_LAYER, *_LISTED, *_AT_THE_FRONT)


@dataclass(frozen=True)
class _Origin:
    """Where a layer of the output comes from: of its sources the first."""

    model: Checkpoint
    layer: int

    def get(self, key: str) -> Any:
        return self.model.config.get(key)


def sliced_config(
    config: MergeConfig, checkpoints: Sequence[Checkpoint], donor: Checkpoint
) -> dict[str, Any]:
    """The donor's config.json for the layers of the output.

    Lists with an entry for each layer take those of the layers' first sources. Where a source says
    nothing, the list is left out, which means the architecture's default.

    Raises:
        InputError: It could not tell the kinds of the layers.
    """
    made = dict(donor.config)
    if not made:
        return made
    by_path = {
        model.path: checkpoint for model, checkpoint in zip(config.models, checkpoints, strict=True)
    }
    origins = [
        _Origin(by_path[source.path], layer)
        for piece in config.modules[0].slices
        for source in piece.sources[:1]
        for layer in range(*(source.layers or (0, 0)))
    ]
    made["num_hidden_layers"] = len(origins)
    for key in _PER_LAYER:
        if isinstance(made.get(key), list):
            lists = [(origin.get(key), origin.layer) for origin in origins]
            if all(isinstance(found, list) and layer < len(found) for found, layer in lists):
                made[key] = [found[layer] for found, layer in lists]
            else:
                del made[key]
    for key in _LISTED:
        if any(origin.get(key) for origin in origins):
            made[key] = _listed(key, origins)
    for key, beyond in _AT_THE_FRONT.items():
        if any(_is_count(origin.get(key)) for origin in origins):
            made[key] = _count_at_the_front(key, beyond, origins)
    _check_periods(made, origins)
    return made


def _listed(key: str, origins: Sequence[_Origin]) -> list[int]:
    """The new numbers of the layers that a list names."""
    found = []
    for number, origin in enumerate(origins):
        listed = origin.get(key)
        if not isinstance(listed, list) and key != "mlp_only_layers":
            raise InputError(
                f"model `{origin.model.name}`: config.json has no list `{key}`, which other models"
                " of these slices have: the kinds of the output's layers cannot be told",
                f"write `{key}` into its config.json",
            )
        if origin.layer in (listed or ()):
            found.append(number)
    return found


def _count_at_the_front(key: str, beyond: int, origins: Sequence[_Origin]) -> int:
    """How many layers there are of the kind that stands at the front.

    Args:
        beyond: How much less the key says; such a key may be -1 for all layers.
    """
    kinds = [_is_at_the_front(origin, key, beyond) for origin in origins]
    count = sum(kinds)
    if not all(kinds[:count]):
        place = kinds.index(False)
        late = origins[place + kinds[place:].index(True)]
        raise InputError(
            f"config.json: `{key}` counts layers from the front, and with these slices layer"
            f" {late.layer} of `{late.model.name}`, which is one of them, comes behind others",
            "take layers of that kind in the first slices alone",
        )
    return count - beyond


def _is_at_the_front(origin: _Origin, key: str, beyond: int) -> bool:
    limit = origin.get(key)
    if beyond and limit in (None, -1):
        return True
    return _is_count(limit) and origin.layer < limit + beyond


def _check_periods(made: dict[str, Any], origins: Sequence[_Origin]) -> None:
    """Refuse layers whose numbers no longer tell their kinds."""
    for key, lists in _PERIODS.items():
        if any(isinstance(made.get(one), list) for one in lists):
            continue
        for number, origin in enumerate(origins):
            period = origin.get(key)
            if not _is_count(period) or period < 1:
                continue
            if period == made.get(key) and (number - origin.layer) % period == 0:
                continue
            raise InputError(
                f"config.json: `{key}` of {period} tells the kinds of layers by their numbers, and"
                f" layer {origin.layer} of `{origin.model.name}` would be layer {number} of the"
                " output, which may be of another kind",
                f"take slices that move layers by a multiple of {period}, from models with the"
                f" same `{key}`",
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
