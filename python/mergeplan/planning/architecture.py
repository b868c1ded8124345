"""What models compute beside their tensors, by config.json: no shape tells where it differs."""

from collections.abc import Sequence
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.planning.rope import rope_of

_KEYS = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "num_experts_per_tok",
    "norm_topk_prob",
    "routed_scaling_factor",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
)


def architecture_differences(checkpoints: Sequence[Checkpoint], donor: Checkpoint) -> list[str]:
    """Warnings about values that differ from the donor's, which the output gets."""
    found = []
    own = _computing(donor.config)
    for other in checkpoints:
        for key, theirs in _computing(other.config).items():
            ours = own.get(key)
            if ours is not None and theirs is not None and ours != theirs:
                found.append(
                    f"config.json: `{key}` is {ours} in `{donor.name}` and {theirs} in"
                    f" `{other.name}`: the output gets that of `{donor.name}`"
                )
    return found


def _computing(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a model computes beside its tensors, by key; of the models within it, too."""
    found = {f"{prefix}{key}": config.get(key) for key in _KEYS}
    found |= {f"{prefix}{key}": value for key, value in rope_of(config).items()}
    for key, inner in config.items():
        if key.endswith("_config") and isinstance(inner, dict) and not prefix:
            found |= _computing(inner, f"{key}.")
    return found
