"""From a plan's job to what computes it on a device."""

from mergeplan.merging.torch.deltas import Deltas
from mergeplan.merging.torch.group.methods import group_program
from mergeplan.merging.torch.linear import Linear
from mergeplan.merging.torch.program import Program, StreamOf
from mergeplan.planning import document
from mergeplan.planning.document import Job


def program_of(job: Job, stream_of: StreamOf, seed: int) -> Program | None:
    """What computes a job; `None` where only the core can."""
    merge = job.merge
    if isinstance(merge, document.Linear):
        return Linear(merge)
    if isinstance(merge, document.Delta):
        return Deltas(job, merge, stream_of, seed)
    if isinstance(merge, document.Group):
        return group_program(job, merge)
    return None
