"""From a plan's job to what computes it on a device."""

from mergeplan.merging.torch.deltas import Deltas
from mergeplan.merging.torch.group.methods import group_program
from mergeplan.merging.torch.linear import Linear
from mergeplan.merging.torch.program import Program, StreamOf
from mergeplan.planning.plan import Job


def program_of(job: Job, stream_of: StreamOf, seed: int) -> Program | None:
    """What computes a job; `None` where only the core can.

    Args:
        job: Of `MergePlan.data`.
    """
    merge = job["merge"]
    if merge["kind"] == "linear":
        return Linear(merge)
    if merge["kind"] == "delta":
        return Deltas(job, stream_of, seed)
    if merge["kind"] == "group":
        return group_program(job)
    return None
