"""Plans whose tensors are made in memory, one batch at a time, and what a tensor begins with."""

from collections.abc import Sequence

import numpy as np

from mergeplan._native import PreparedFamily
from mergeplan.checkpoints.checkpoint import with_sources
from mergeplan.checkpoints.dtypes import FLOATS, bits_of
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.inspection.values import Bytes, Side
from mergeplan.merging.options import MergeOptions
from mergeplan.planning.document import Group, Job, Plan
from mergeplan.planning.group_methods import Passthrough
from mergeplan.planning.plan import MergePlan
from mergeplan.system.machine import worker_threads
from mergeplan.system.memory import default_limit


class Source:
    """A plan whose tensors are made in memory."""

    def __init__(self, plan: Plan, options: MergeOptions) -> None:
        self._jobs = plan.jobs
        self._threads = options.threads or worker_threads()
        self._memory = options.memory_limit or default_limit(self._threads)
        self._family = PreparedFamily([plan.json()])
        self._numbers = {job.tensor: number for number, job in enumerate(plan.jobs)}

    def read(self, first: int, dtypes: Sequence[str]) -> list[Side]:
        """Tensors one behind the other, each in a dtype."""
        jobs = self._jobs[first : first + len(dtypes)]
        raw: list[Bytes] = [
            np.empty(job.n_elements * bits_of(dtype) // 8, np.uint8)
            for job, dtype in zip(jobs, dtypes, strict=True)
        ]
        regions = list(zip(raw, dtypes, strict=True))
        self._family.run_into(
            [(0, first, regions)], threads=self._threads, memory_bytes=self._memory
        )
        return [Side(*region) for region in regions]

    def named(self, tensor: str, dtype: str = "F32") -> Side | None:
        """A tensor by its name; `None` where there is none."""
        number = self._numbers.get(tensor)
        return None if number is None else self.read(number, [dtype])[0]


def part(side: Side, begin: int, n: int) -> Side:
    size = bits_of(side.dtype)
    return Side(side.raw[begin * size // 8 : (begin + n) * size // 8], side.dtype)


def origin(plan: MergePlan, job: Job) -> TensorRef | None:
    """The tensor that a merge begins with: its base's, or the first model's, without an adapter."""
    references = job.merge.references
    if not references:
        return None
    at = TensorRef(references[0].model, references[0].tensor)
    models = with_sources(plan.checkpoints)
    if at.model < len(models) and models[at.model].is_adapted:
        model = models[at.model]
        first = model.made[at.tensor].parts[0]
        below = next(source for source in model.sources if source.path == model.path)
        name = at.tensor if at.tensor in below.tensors else first.tensor
        if name not in below.tensors:
            return None
        at = TensorRef([m.key for m in models].index(below.key), name)
    if at.model < len(models) and models[at.model].tensors[at.tensor].dtype not in FLOATS:
        return None
    return at


def widened_input(name: str, job: Job, at: TensorRef) -> Job:
    """A tensor of a job's shape, as it is, in float32."""
    return Job(name, job.shape, "F32", Group("float32", Passthrough(None), None, (at,)))


def leaves_as_is(plan: MergePlan, job: Job) -> bool:
    """Whether a merge is nothing but an adapter on its base, and leaves a tensor out of it."""
    references = job.merge.references
    if len(references) != 1 or references[0].model >= len(plan.checkpoints):
        return False
    made = plan.checkpoints[references[0].model].made.get(references[0].tensor)
    return made is not None and made.kind == "same"
