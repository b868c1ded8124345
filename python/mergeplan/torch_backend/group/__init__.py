"""Methods that look at whole vectors of their inputs; see `rust/core/src/execute/group`.

One file for each method, of the same name. `group` is what they share of a job, `sums` and `order`
what they find out about a whole tensor, `vectors` about each of its rows or columns.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mergeplan.torch_backend.group.arcee_fusion import ArceeFusion
from mergeplan.torch_backend.group.group import Group
from mergeplan.torch_backend.group.karcher import Karcher
from mergeplan.torch_backend.group.model_stock import ModelStock
from mergeplan.torch_backend.group.multislerp import Multislerp
from mergeplan.torch_backend.group.nearswap import Nearswap
from mergeplan.torch_backend.group.nuslerp import Nuslerp
from mergeplan.torch_backend.group.passthrough import Passthrough
from mergeplan.torch_backend.group.ram import Ram
from mergeplan.torch_backend.group.sce import Sce
from mergeplan.torch_backend.group.slerp import Slerp

if TYPE_CHECKING:
    from mergeplan.torch_backend.programs import Job, Program

# By the plan's name; the plan's options are their further arguments.
_METHODS: "dict[str, Callable[..., Program]]" = {
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


def group_program(job: "Job") -> "Program | None":
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
        return Passthrough(Group(job, [0]))
    if count == 1 and name in ("multislerp", "karcher"):
        return Passthrough(Group(job, [int(has_base)]))
    return _METHODS[name](Group(job, list(range(has_base + count))), **options)
