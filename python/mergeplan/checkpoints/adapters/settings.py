"""What `adapter_config.json` says of an adapter's tensors: its kind, and each module's scale."""

import math
import re
from collections.abc import Mapping

from mergeplan.checkpoints.adapters.folder import CONFIG
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.errors import InputError

BY_PEFT = "merge it into its base by peft's `merge_and_unload` first"
# Settings that change what an adapter's tensors mean, and are not supported.
_REFUSED = {
    "use_dora": "DoRA scales every row by its norm",
    "alora_invocation_tokens": "an activated LoRA depends on the prompt",
    "arrow_config": "Arrow routes between adapters",
    "lora_bias": "the update has a bias of its own",
    "target_parameters": "parameters are adapted in place of modules",
    "layer_replication": "layers are repeated",
    "trainable_token_indices": "single tokens are replaced",
    "use_bdlora": "the factors are block-diagonal",
    "use_qalora": "the factors are pooled",
    "kasa_config": "the update is scaled by singular values",
}
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def check_kind(adapter: Checkpoint) -> None:
    """Refuse what peft would merge in another way than by adding s·B·A.

    Raises:
        InputError: It is no LoRA, or of a kind that is not supported.
    """
    kind = adapter.config.get("peft_type")
    where = f"`{adapter.path / CONFIG}`"
    if kind != "LORA":
        raise InputError(
            f"{where}: expected `peft_type` LORA, found {kind}",
            BY_PEFT,
        )
    for key, why in _REFUSED.items():
        if adapter.config.get(key):
            raise InputError(
                f"{where}: `{key}` is set: {why}, which is not computed while streaming",
                BY_PEFT,
            )
    init = str(adapter.config.get("init_lora_weights")).lower()
    if init.startswith(_CHANGE_THE_BASE):
        raise InputError(
            f"{where}: `init_lora_weights: {init}` takes a part out of the base, to which the"
            " adapter is then added",
            "save it as a plain LoRA: peft's `path_initial_model_for_weight_conversion` does that",
        )


def scale_of(module: str, rank: int, adapter: Checkpoint) -> float:
    """s: alpha / rank, or alpha / sqrt(rank) for rsLoRA, with this module's own alpha.

    Args:
        module: As the adapter's files call it.

    Raises:
        InputError: The factors have another rank than the settings, or alpha is no number.
    """
    config = adapter.config
    where = f"`{adapter.path / CONFIG}`"
    asked = _of_pattern(config.get("rank_pattern"), module, config.get("r"), where)
    if asked is None:
        raise InputError(
            f"{where}: expected the rank as `r`, found none, and factors of {rank} for `{module}`",
            f'write `"r": {rank}` into it, or fetch the file again',
        )
    if asked != rank:
        raise InputError(
            f"{where}: `{module}`: expected rank {asked} as `r` or `rank_pattern` says, found"
            f" factors of {rank}",
            "fetch the settings and the weights of one adapter again, from one place",
        )
    alpha = _of_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha"), where)
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise InputError(
            f"{where}: `lora_alpha`: expected a number, found {alpha}",
            "write the alpha that the adapter was trained with; peft's own default is 8",
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(pattern: object, module: str, default: object, where: str) -> object:
    """The value of the first pattern that ends a module's name, as in peft."""
    if not isinstance(pattern, Mapping):
        return default
    for key, value in pattern.items():
        try:
            if re.fullmatch(rf"(.*\.)?({key})", module):
                return value
        except re.error as error:
            raise InputError(
                f"{where}: `{key}` is no pattern: {error}",
                "write a regular expression, or the end of a module's name",
            ) from error
    return default
