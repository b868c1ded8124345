"""Buffers of integers and booleans: equal ones are copied, counters are the donor's."""

from dataclasses import replace

from mergeplan.checkpoints.checkpoint import Checkpoint, with_sources
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.errors import InputError
from mergeplan.planning.document import Copy, Job
from mergeplan.planning.plan import MergePlan

# What a module counts while it trains: no two models agree, and none is wrong.
COUNTERS = ("num_batches_tracked", "step")


def with_equal_buffers(plan: MergePlan) -> MergePlan:
    """The plan with each buffer from one model, once all are known to have the same.

    They are read here: they are few and small, and a merge that ends at one has written in vain.

    Raises:
        InputError: A buffer differs, and is no counter.
    """
    copies = [job for job in plan.data.jobs if _has_several(job)]
    if not copies:
        return plan
    from mergeplan._native import differing_copies

    found = differing_copies(replace(plan.data, jobs=tuple(copies)).json())
    counters = {}
    for number, place in found:
        job = copies[number]
        if job.tensor.rpartition(".")[2] not in COUNTERS:
            raise _differs(plan, job, place)
        counters[job.tensor] = _of_the_donor(plan, job)
    if not counters:
        return plan
    jobs = tuple(counters.get(job.tensor, job) for job in plan.data.jobs)
    said = (
        f"{len(counters)} counters differ, the first `{next(iter(counters))}`: the output has those"
        f" of `{plan.donor.name}`"
    )
    return replace(plan, data=replace(plan.data, jobs=jobs), warnings=(*plan.warnings, said))


def _has_several(job: Job) -> bool:
    return isinstance(job.merge, Copy) and len(job.merge.inputs) > 1


def _of_the_donor(plan: MergePlan, job: Job) -> Job:
    """A job that copies from the donor alone, or from the first where the donor has no part."""
    donor = plan.checkpoints.index(plan.donor)
    references = [TensorRef(one.model, one.tensor) for one in job.merge.references]
    own = next((one for one in references if one.model == donor), references[0])
    return replace(job, merge=Copy((own,)))


def _differs(plan: MergePlan, job: Job, place: int) -> InputError:
    models = with_sources(plan.checkpoints)
    first, other = (job.merge.references[number] for number in (0, place))
    where = _place_of(models[other.model], other.tensor)
    return InputError(
        f"{where}: tensor `{other.tensor}`: expected the values that `{models[first.model].name}`"
        f" has, found others: {job.out_dtype} is copied, and never averaged",
        "give all models the same one, that of the base for instance",
    )


def _place_of(model: Checkpoint, tensor: str) -> str:
    return f"`{model.path / model.tensors[tensor].file}`"
