"""Which tensor of a checkpoint is which of a merge: other spellings, tied heads, tables."""

from dataclasses import dataclass, field, replace
from math import prod

from mergeplan.checkpoints.checkpoint import Checkpoint, Computed
from mergeplan.checkpoints.heads import stand_in
from mergeplan.checkpoints.passed_over import reason_to_pass_over
from mergeplan.planning.pairing import respelled
from mergeplan.planning.plan import MergePlan


@dataclass(frozen=True)
class Pair:
    """A tensor of the merge and the one of the checkpoint.

    Attributes:
        job: Its number in the plan.
        begin: First element in the job's tensor.
        shape: The merge's.
        theirs: The checkpoint's name, as its file has it.
    """

    tensor: str
    theirs: str
    job: int
    begin: int
    shape: tuple[int, ...]
    detail: str = ""


@dataclass
class Pairs:
    """All tensors of both.

    Attributes:
        found: In the order of the plan's jobs.
        missing, extra: Names that the checkpoint, or the merge, has not.
        passed_over: The same where it means nothing, each with the reason.
    """

    found: list[Pair] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


def pair(plan: MergePlan, checkpoint: Checkpoint) -> Pairs:
    """Pair the tensors of a merge with those of a checkpoint.

    Of tensors that are tied a checkpoint may have one or both.
    """
    shapes = {name: shape for job in plan.data.jobs for name, shape in job.stored.items()}
    ours = _as_checkpoint(plan, shapes)
    theirs = respelled(checkpoint, ours)
    result = Pairs()
    beside: dict[str, list[str]] = {}
    for name, tensor in sorted(theirs.tensors.items()):
        if name in shapes:
            continue
        if (place := stand_in(name, ours)) in shapes:
            beside.setdefault(str(place), []).append(name)
        elif reason := reason_to_pass_over(name, tensor.shape, theirs.config):
            result.passed_over[theirs.own_name(name)] = reason
        else:
            result.extra.append(theirs.own_name(name))
    for number, job in enumerate(plan.data.jobs):
        begin = 0
        for name, shape in job.stored.items():
            place = name if name in theirs.tensors else stand_in(name, theirs)
            if place in theirs.tensors:
                detail = "" if place == name else "tied, and left out there"
                own = theirs.own_name(str(place))
                result.found.append(Pair(name, own, number, begin, shape, detail))
            elif reason := reason_to_pass_over(name, shape, plan.model_config):
                result.passed_over[name] = reason
            else:
                result.missing.append(name)
            for other in beside.get(name, ()):
                own, detail = theirs.own_name(other), f"tied to `{name}`, and stored there too"
                result.found.append(Pair(other, own, number, begin, shape, detail))
            begin += prod(shape)
    return result


def _as_checkpoint(plan: MergePlan, shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    """The merge as if it were stored, for questions about names and heads."""
    some = next(iter(plan.donor.tensors.values()))
    tensors = {name: replace(some, shape=shape) for name, shape in shapes.items()}
    config = plan.model_config
    return replace(plan.donor, tensors=tensors, made=Computed(), own_names={}, config=config)
