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
from mergeplan.planning import group_methods
from mergeplan.planning.document import Group, Job

# The plan's options are their further arguments.
_METHODS: dict[type[group_methods.GroupMethod], Callable[..., Program]] = {
    group_methods.Slerp: Slerp,
    group_methods.Nuslerp: Nuslerp,
    group_methods.Multislerp: Multislerp,
    group_methods.ModelStock: ModelStock,
    group_methods.Sce: Sce,
    group_methods.Karcher: Karcher,
    group_methods.Nearswap: Nearswap,
    group_methods.ArceeFusion: ArceeFusion,
    group_methods.Ram: Ram,
    group_methods.RamplusTl: Ram,
    group_methods.Passthrough: Passthrough,
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
    if count == 1 and isinstance(method, group_methods.Multislerp | group_methods.Karcher):
        return Passthrough(GroupInputs(job, merge, [int(has_base)]))
    every = GroupInputs(job, merge, list(range(has_base + count)))
    return make(every, **options)
