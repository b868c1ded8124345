"""Which tensors of a model an adapter can hold as factors, and what peft calls their layers."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mergeplan.checkpoints.head_names import has_row_per_token
from mergeplan.planning.document import Job

# Their linear layers are transformers' Conv1D, which stores (inputs, outputs).
_TRANSPOSED = frozenset(
    {"ctrl", "decision_transformer", "gpt-sw3", "gpt2", "imagegpt", "openai-gpt"}
)
# transformers holds these packed, or multiplies by them in no linear layer.
_EXPERTS = re.compile(r"\.(experts|router|block_sparse_moe\.gate|mlp\.gate)\.")
# Tables of positions and of token types are embeddings too.
_TABLE = re.compile(r"(^|[._])(wpe|embed\w*|relative_attention_bias)\.")


def why_left_out(job: Job) -> str | None:
    """Why a tensor cannot be factors of a linear layer; `None` where it can."""
    name = job.tensor
    if job.parts is not None or len(job.shape) > 2 or _EXPERTS.search(f".{name}"):
        return "experts or router" if _EXPERTS.search(f".{name}") else "no matrix"
    if has_row_per_token(name) or _TABLE.search(name):
        return "embedding or head"
    if len(job.shape) < 2:
        return "bias" if name.endswith("bias") else "norm or vector"
    return None if name.endswith(".weight") else "no linear layer"


def stores_inputs_first(config: Mapping[str, Any]) -> bool:
    """Whether a model's linear layers store their matrix transposed."""
    return config.get("model_type") in _TRANSPOSED


def is_saved(tensor: str, modules: Sequence[str]) -> bool:
    """Whether a tensor belongs to one of the modules that are kept whole."""
    return any(f".{tensor.rpartition('.')[0]}".endswith(f".{name}") for name in modules)


def targets_of(modules: Iterable[str], tensors: Iterable[str]) -> list[str]:
    """Names by which peft finds these modules and no others.

    Args:
        tensors: All tensors of the model.

    Returns:
        The last part of a name where all modules that end so are wanted, else the whole name.
    """
    wanted = set(modules)
    ending: dict[str, set[str]] = defaultdict(set)
    for tensor in tensors:
        module = tensor.rpartition(".")[0]
        ending[module.rpartition(".")[2]].add(module)
    found = set()
    for module in wanted:
        last = module.rpartition(".")[2]
        short = not last.isdigit() and ending[last] <= wanted
        found.add(last if short else module)
    return sorted(found)


def settings(
    ranks: Mapping[str, int],
    tensors: Iterable[str],
    *,
    base: str,
    saved: Sequence[str],
    transposed: bool,
    causal: bool,
) -> dict[str, Any]:
    """What adapter_config.json says; alpha is the rank, so that nothing is scaled.

    Args:
        ranks: By module.
        tensors: All tensors of the model.
        saved: Modules that are kept whole.
    """
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {module: rank for module, rank in sorted(ranks.items()) if rank != usual}
    return {
        "alpha_pattern": others,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "modules_to_save": list(saved) or None,
        "peft_type": "LORA",
        "r": usual,
        "rank_pattern": others,
        "target_modules": targets_of(ranks, tensors),
        "task_type": "CAUSAL_LM" if causal else None,
        "use_rslora": False,
    }
