"""Merges that mergekit plans and our core executes: tokenizers, modules, packed weights.

mergekit is a package of its own (`pip install 'mergeplan[mergekit]'`), and takes seconds to import:
only `plan_by_mergekit` loads it. mergekit decides what belongs together and which value every
option takes; each of its tasks then becomes a job of the core. What the core cannot do, mergekit's
own executor computes, tensor by tensor (`fallback`).

Nothing here lets mergekit read a weight, download a model or merge an adapter: its loaders are
replaced by ours (`models`), which know every checkpoint that mergeplan can open.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergeplan.mergekit_adapter.library import check_installed

if TYPE_CHECKING:
    from mergeplan.config import MergeConfig
    from mergeplan.plan import MergePlan


@dataclass(frozen=True)
class AdapterOptions:
    """What mergekit may do while it plans; names and defaults are those of its flags.

    Attributes:
        allow_crimes: Mix architectures.
        trust_remote_code: Run code that comes with a model, to read its config and tokenizer.
        unsafe_truncate_embeddings: Cut vocabularies to the smallest; without a tokenizer option.
        transformers_cache: Folder of the hub's cache, or `None` for the default.
    """

    allow_crimes: bool = False
    trust_remote_code: bool = False
    unsafe_truncate_embeddings: bool = False
    transformers_cache: str | None = None


def plan_by_mergekit(
    config: "MergeConfig",
    options: AdapterOptions | None = None,
    *,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool = False,
) -> "MergePlan":
    """Plan a merge by mergekit, for our core.

    Raises:
        InputError: mergekit is not installed or of another version, or the config or its models do
            not fit.
    """
    check_installed()
    from mergeplan.mergekit_adapter.planning import plan

    return plan(
        config,
        options or AdapterOptions(),
        seed=seed,
        max_shard_bytes=max_shard_bytes,
        allow_nonfinite=allow_nonfinite,
    )
