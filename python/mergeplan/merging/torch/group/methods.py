"""From a plan's job of the kind `group` to what computes it."""

from collections.abc import Callable
from typing import Any

from mergeplan.merging.torch.group.arcee_fusion import ArceeFusion
from mergeplan.merging.torch.group.inputs import GroupInputs
from mergeplan.merging.torch.group.karcher import Karcher
from mergeplan.merging.torch.group.model_stock import ModelStock
from mergeplan.merging.torch.group.multislerp import Multislerp
from mergeplan.merging.torch.group.nearswap import Nearswap
from mergeplan.merging.torch.group.nuslerp import Nuslerp
from mergeplan.merging.torch.group.passthrough import Passthrough
from mergeplan.merging.torch.group.ram import Ram
from mergeplan.merging.torch.group.sce import Sce
from mergeplan.merging.torch.group.slerp import Slerp
from mergeplan.merging.torch.program import Program
from mergeplan.planning.plan import Job

# By the plan's name; the plan's options are their further arguments.
_METHODS: dict[str, Callable[..., Program]] = {
    "slerp": Slerp,
    "nuslerp": Nuslerp,
    "multislerp": Multislerp,
    "model_stock": ModelStock,
    "sce": Sce,
    "karcher": Karcher,
    "nearswap": Nearswap,
    "arcee_fusion": ArceeFusion,
    "ram": Ram,
    "ramplus_tl": Ram,
    "passthrough": Passthrough,
}


def group_program(job: Job) -> Program | None:
    """What computes a job of the kind `group`; `None` where only the core can.

    Args:
        job: Of `MergePlan.data`.
    """
    merge: dict[str, Any] = job["merge"]
    options = dict(merge["method"])
    name = options.pop("name")
    if name not in _METHODS:
        return None
    has_base, count = merge["base"] is not None, len(merge["inputs"])
    # Nothing to interpolate with: the result is the one input, or the base.
    if count == 0:
        return Passthrough(GroupInputs(job, [0]))
    if count == 1 and name in ("multislerp", "karcher"):
        return Passthrough(GroupInputs(job, [int(has_base)]))
    return _METHODS[name](GroupInputs(job, list(range(has_base + count))), **options)
