"""Merges that mergekit plans and our core executes: tokenizers, modules, packed weights.

mergekit is a package of its own (`pip install 'mergeplan[mergekit]'`), and takes seconds to import:
only `plan_by_mergekit` loads it. mergekit decides what belongs together and which value every
option takes; each of its tasks then becomes a job of the core. What the core cannot do, mergekit's
own executor computes, tensor by tensor (`fallback`).

Nothing here lets mergekit read a weight, download a model or merge an adapter: its loaders are
replaced by ours (`models`), which know every checkpoint that mergeplan can open.
"""

import sys
from typing import TYPE_CHECKING

from mergeplan.mergekit_version import require_mergekit
from mergeplan.plan_options import PlanOptions

if TYPE_CHECKING:
    from mergeplan.config import MergeConfig
    from mergeplan.plan import MergePlan

_OURS = {None, "float32", "bfloat16", "float16"}


def plan_by_mergekit(
    config: "MergeConfig",
    options: PlanOptions | None = None,
    *,
    why: str | None = None,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool = False,
) -> "MergePlan":
    """Plan a merge by mergekit, for our core.

    Where mergekit is not loaded yet, a process of its own loads it, so that this one stays small;
    but for dtypes that mergekit must compute in.

    Args:
        why: Why mergekit plans it: `because of …`.

    Raises:
        MissingInputError: mergekit is not installed.
        InputError: It is of another version, or the config or its models do not fit.
    """
    require_mergekit(f"this merge, {why}," if why else "this merge")
    from mergeplan.mergekit_adapter.apart import Request, plan_apart

    options = options or PlanOptions()
    request = Request(config.text, options, seed, max_shard_bytes, allow_nonfinite)
    here = "mergekit" in sys.modules or not {config.dtype, config.out_dtype} <= _OURS
    return (None if here else plan_apart(request)) or request.plan()
