"""What `adapter_config.json` says of an adapter's tensors: its kind, and each module's scale."""

import math

from mergeplan.checkpoints.adapters.folder import CONFIG
from mergeplan.checkpoints.adapters.patterns import Patterns
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.display.text import cut, shown
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
            f"{where}: expected `peft_type` LORA, found {cut(kind)}",
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
            f"{where}: `init_lora_weights: {cut(init)}` takes a part out of the base, to which the"
            " adapter is then added",
            "save it as a plain LoRA: peft's `path_initial_model_for_weight_conversion` does that",
        )


class Scales:
    """The factor of each module's update.

    Args:
        adapter: Whose settings say it.
    """

    def __init__(self, adapter: Checkpoint) -> None:
        self._config = adapter.config
        self._where = f"`{adapter.path / CONFIG}`"
        self._ranks = Patterns(self._config.get("rank_pattern"), self._where)
        self._alphas = Patterns(self._config.get("alpha_pattern"), self._where)

    def of(self, module: str, rank: int) -> float:
        """s: alpha / rank, or alpha / sqrt(rank) for rsLoRA, with this module's own alpha.

        Args:
            module: As the adapter's files call it.

        Raises:
            InputError: The factors have another rank than the settings or none, or alpha is no
                number that fits.
        """
        if rank < 1:
            raise InputError(
                f"{self._where}: {shown(module)}: expected factors of rank 1 or more, found 0",
                "the adapter is damaged, or was never trained: fetch it again",
            )
        asked = self._ranks.value(module, self._config.get("r"))
        if asked is None:
            raise InputError(
                f"{self._where}: expected the rank as `r`, found none, and factors of {rank} for"
                f" {shown(module)}",
                f'write `"r": {rank}` into it, or fetch the file again',
            )
        if asked != rank:
            raise InputError(
                f"{self._where}: {shown(module)}: expected rank {cut(asked)} as `r` or"
                f" `rank_pattern` says, found factors of {rank}",
                "fetch the settings and the weights of one adapter again, from one place",
            )
        alpha = self._alphas.value(module, self._config.get("lora_alpha"))
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e38:
            raise InputError(
                f"{self._where}: `lora_alpha`: expected a number that fits float32, found"
                f" {cut(alpha)}",
                "write the alpha that the adapter was trained with; peft's own default is 8",
            )
        return float(alpha) / (math.sqrt(rank) if self._config.get("use_rslora") else rank)
