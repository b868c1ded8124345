"""Which jobs devices do, and which the core does."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING

from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.merging.torch.loading import DTYPES, inputs_of
from mergeplan.merging.torch.programs import program_of
from mergeplan.merging.torch.task import Member, Task
from mergeplan.planning.document import Given, Plan

if TYPE_CHECKING:
    from mergeplan._native import InputReader

# Smaller tensors cost a device more in launches than the core needs for all of it.
LEAST_ELEMENTS = 1 << 16


def split(
    jobs: Iterable[tuple[int, int, int]],
    plans: Sequence[Plan],
    reader: "InputReader",
    least_elements: int,
) -> tuple[list[Task], list[tuple[int, int]]]:
    """Tasks for devices, and output and number of the jobs that are left to the core.

    Args:
        jobs: Output, number of its merge in the reader's family, and number of the job.
        plans: The plan of each output.
        least_elements: Smaller tensors are left to the core.
    """
    core: list[tuple[int, int]] = []
    members: dict[tuple[str, tuple[int, ...]], list[Member]] = {}
    for output, merge, index in jobs:
        job = plans[output].jobs[index]
        if isinstance(job.merge, Given):
            continue
        member = None
        if job.n_elements >= max(least_elements, 1):
            member = _member(reader, plans[output], output, merge, index)
        if member is None:
            core.append((output, index))
        else:
            members.setdefault((job.tensor, job.shape), []).append(member)
    tasks = [Task(prod(shape), tuple(some)) for (_, shape), some in members.items()]
    return tasks, core


def _member(
    reader: "InputReader", plan: Plan, output: int, merge: int, index: int
) -> Member | None:
    job = plan.jobs[index]

    def stream(number: int) -> int:
        return reader.stream_id(merge, index, number)

    program = program_of(job, stream, plan.seed)
    if program is None or job.out_dtype not in FLOATS:
        return None
    inputs = tuple(inputs_of(reader, merge, index))
    return Member(output, index, program, inputs, DTYPES[FLOATS[job.out_dtype]])
