"""From a plan's job of the kind `group` to what computes it."""

from collections.abc import Callable
from dataclasses import fields

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
from mergeplan.planning import document
from mergeplan.planning.document import Group, Job

# The plan's options are their further arguments.
_METHODS: dict[type[document.GroupMethod], Callable[..., Program]] = {
    document.Slerp: Slerp,
    document.Nuslerp: Nuslerp,
    document.Multislerp: Multislerp,
    document.ModelStock: ModelStock,
    document.Sce: Sce,
    document.Karcher: Karcher,
    document.Nearswap: Nearswap,
    document.ArceeFusion: ArceeFusion,
    document.Ram: Ram,
    document.RamplusTl: Ram,
    document.Passthrough: Passthrough,
}


def group_program(job: Job, merge: Group) -> Program | None:
    """What computes a job whose merge is a group; `None` where only the core can."""
    method = merge.method
    make = _METHODS.get(type(method))
    if make is None:
        return None
    options = {field.name: getattr(method, field.name) for field in fields(method)}
    has_base, count = merge.base is not None, len(merge.inputs)
    # Nothing to interpolate with: the result is the one input, or the base.
    if count == 0:
        return Passthrough(GroupInputs(job, merge, [0]))
    if count == 1 and isinstance(method, document.Multislerp | document.Karcher):
        return Passthrough(GroupInputs(job, merge, [int(has_base)]))
    every = GroupInputs(job, merge, list(range(has_base + count)))
    return make(every, **options)
