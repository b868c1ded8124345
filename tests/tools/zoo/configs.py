"""A small config of any model type: its defaults, with every size made tiny by its name."""

import copy
import re
from typing import Any

from tests.tools.zoo.sizes import CLASSES, DEFAULTS, FIELDS, LAYERS, LISTS, TYPES, VOCABULARY

_TOKEN = re.compile(r"(_token_id|_token_index|_token_ids|_token|_idx|_id)$")
_PER_LAYER = re.compile(
    r"(layer_types|layers_block_type|block_types|attention_layers|indexer_types)$"
)
# What transformers works out by itself, or what says where a config came from.
_DERIVED = {
    "dtype",
    "transformers_version",
    "_name_or_path",
    "architectures",
    "_attn_implementation",
} | {"id2label", "label2id"}


def small_config(config_class: Any, class_name: str) -> Any:
    """A config of two layers of width 32 or so, for a class of models."""
    default = config_class(**DEFAULTS.get(config_class.model_type, {}))
    small = shrunk(default.to_dict())
    return config_class(**update(small, CLASSES.get(class_name, {})))


def shrunk(values: dict[str, Any]) -> dict[str, Any]:
    """The fields with tiny sizes, in sub-configs too, and what a model type needs of its own."""
    small: dict[str, Any] = {}
    tokens = 0
    layers = values.get("num_hidden_layers")
    if not all(isinstance(name, str) for name in values):
        return values
    for name, value in values.items():
        if name in _DERIVED:
            continue
        if isinstance(value, dict) and _by_layer(value):
            small[name] = {LAYERS - 1: shrunk(next(iter(value.values())))}
        elif isinstance(value, dict):
            small[name] = shrunk(value)
        elif isinstance(value, list) and name in LISTS:
            small[name] = LISTS[name]
        elif isinstance(value, list) and (_PER_LAYER.search(name) or len(value) == layers):
            small[name] = [_size(name, kind) for kind in kinds(value)]
        elif _TOKEN.search(name) and isinstance(value, int) and value >= VOCABULARY:
            tokens += 1
            small[name] = VOCABULARY - tokens
        else:
            small[name] = _size(name, copy.deepcopy(value))
    return update(small, TYPES.get(values.get("model_type", ""), {}))


def _by_layer(values: dict[Any, Any]) -> bool:
    """Whether it says what single layers have of their own."""
    return any(isinstance(value, dict) and str(key).isdigit() for key, value in values.items())


def update(small: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The fields with others in their place; a dict says what changes in a sub-config."""
    changed = dict(small)
    for name, value in own.items():
        inner = changed.get(name)
        nested = isinstance(value, dict) and isinstance(inner, dict)
        changed[name] = update(inner, value) if nested else value
    return changed


def _size(name: str, value: Any) -> Any:
    is_size = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return FIELDS.get(name, value) if is_size else value


def kinds(layers: list[Any]) -> list[Any]:
    """Two layers that show as many kinds as they can."""
    first = layers[0]
    others = [layer for layer in layers if layer != first]
    return [first, *(others[:1] or [first])][:LAYERS]
