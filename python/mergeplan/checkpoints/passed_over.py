"""The one list of tensors that an output may lack although some input has them, each with a reason.

Every other tensor of an input counts: where some model lacks it, a merge is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from mergeplan.checkpoints.spelling import spelling

# What has no meaning beside weights that are not quantised.
_RUNNING_SCALE = re.compile(
    r"[._](input|output|k|v|q|kv|kv_cache|activation|act|prob|prob_output)_scale(_ub)?$"
)
# What the end of a name, or a module in it, says. Where every model has such a tensor, it is
# merged as any other; where some lack it, the output does too.
_BY_NAME: tuple[tuple[str, str], ...] = (
    (_RUNNING_SCALE.pattern, "scales of activations"),
    (r"\b(original_)?inv_freq$", "inverse frequencies, which every model computes"),
    (r"\brotary_emb\.(cos|sin)_cached$", "tables of rotary angles, which every model computes"),
    (r"\bposition_ids$", "positions, which every model counts itself"),
    (r"\b(attn|attention)\.masked_bias$", "the value of masked scores, a constant"),
    (r"\b(predictions|lm_head)\.decoder\.bias$", "a copy of the head's bias, which is tied to it"),
    (r"\battn\.causal_mask$", "a causal mask, which every model computes"),
    (r"\brelative_position_index$", "an index that the window's size determines"),
    (r"^(model\.)?(encoder|decoder)\.version$", "the number of a file format"),
    (r"\b(mtp|mtp_layers)\.", "layers of multi-token prediction, which transformers does not load"),
)
_BY_NAME_COMPILED = tuple((re.compile(pattern), reason) for pattern, reason in _BY_NAME)
BEHIND_THE_LAST = (
    "layers behind the last one, for multi-token prediction, not loaded by transformers"
)
_MASK = re.compile(r"\b(attn|attention|crossattention)\.bias$")
# Of the text's own stack: a tower may have more layers.
_LAYER = re.compile(r"layers\.(\d+)\.")


def reason_to_pass_over(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> str | None:
    """Why an output may lack a tensor that this model has; `None` where it counts.

    Args:
        config: The contents of the model's `config.json`.

    >>> reason_to_pass_over("h.0.attn.bias", (1, 1, 64, 64), {})
    'a causal mask, which every model computes'
    >>> reason_to_pass_over("model.layers.4.mlp.up_proj.weight", (8, 4), {"num_hidden_layers": 4})
    'layers behind the last one, for multi-token prediction, not loaded by transformers'
    """
    if _MASK.search(name) and len(shape) == 4 and shape[:2] == (1, 1):
        return "a causal mask, which every model computes"
    for pattern, reason in _BY_NAME_COMPILED:
        if pattern.search(name):
            return reason
    if _is_behind_the_last(name, config):
        return BEHIND_THE_LAST
    return None


def is_running_scale(name: str) -> bool:
    """Whether a tensor scales activations, or the cache of keys and values."""
    return _RUNNING_SCALE.search(name) is not None


def text_layer(name: str) -> int | None:
    """Number of the layer of the text's own stack that a tensor belongs to, if it does."""
    layer = _LAYER.match(spelling(name))
    return int(layer[1]) if layer else None


def _is_behind_the_last(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to a layer that `config.json` does not count among the model's."""
    layer = text_layer(name)
    if layer is None:
        return False
    text = config.get("text_config")
    own = text if isinstance(text, Mapping) else config
    count = own.get("num_hidden_layers")
    return isinstance(count, int) and not isinstance(count, bool) and layer >= count > 0
