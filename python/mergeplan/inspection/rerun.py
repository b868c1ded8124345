"""A merge that runs again beside a checkpoint, tensor by tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod

import numpy as np

from mergeplan.checkpoints.checkpoint import Checkpoint, Tensor, planned_models
from mergeplan.checkpoints.dtypes import FLOATS, STORED_NAMES
from mergeplan.checkpoints.head_names import has_row_per_token
from mergeplan.checkpoints.names import parts_of
from mergeplan.checkpoints.plan_models import TensorRef
from mergeplan.config.config import MergeConfig
from mergeplan.config.seed import seed_of
from mergeplan.errors import InputError
from mergeplan.inspection.closeness import Closeness, bytes_equal, judge, untouched
from mergeplan.inspection.in_memory import Source, leaves_as_is, origin, part, widened_input
from mergeplan.inspection.pairs import Pair, pair
from mergeplan.inspection.replayed import ReplayedTensor, Status, torch_name
from mergeplan.inspection.thresholds import FEW, MOST, Mask, at_thresholds, excused
from mergeplan.inspection.values import Side, Values, is_floating, pieces, rounded, values_differ
from mergeplan.merging.options import MergeOptions
from mergeplan.planning.document import Copy, Delta, Group, Job, Merge
from mergeplan.planning.group_methods import ArceeFusion, Passthrough, Sce
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.planner import build_plan
from mergeplan.system.files import allow_open_files

# Tensors are merged in batches of so many bytes, or one by one where they are larger.
_BATCH_BYTES = 64 << 20
# What is said of elements of which one is NaN or infinite.
NOT_FINITE = "not finite here or in the merge"
# How deltas are thinned by chance, and by their magnitudes.
_RANDOM, _TRIMS = ("random", "ranks"), ("magnitude", "outliers")


class Rerun:
    """The merge, the checkpoint, and the base, each ready to be read tensor by tensor.

    Attributes:
        plan: The merge's.
        seedless: Whether nobody gave a seed of random masks.
        changes_something: Whether a tensor that was compared is another than the base's, once
            merged.
    """

    def __init__(self, config: MergeConfig, options: MergeOptions, found: Checkpoint) -> None:
        self._config, self._options, self._found = config, options, found
        self.plan = self._planned(config, options)
        self.jobs = self.plan.data.jobs
        self.changes_something = False
        self.seedless = config.random_seed is None and options.seed is None
        self._check(found)
        allow_open_files(sum(len(c.files) for c in (*self.plan.checkpoints, found)) * 4)
        self.pairs = pair(self.plan, found)
        self._ours = Source(self.plan.data, options)
        jobs = tuple(self._stored(one) for one in self.pairs.found)
        models = planned_models([found])
        data = replace(self.plan.data, models=models, jobs=jobs, allow_nonfinite=True)
        self._theirs = Source(data, options)

    def _planned(self, config: MergeConfig, options: MergeOptions) -> MergePlan:
        return build_plan(
            config,
            seed=seed_of(config.random_seed, options.seed, "the config")[0],
            max_shard_bytes=options.max_shard_bytes,
            allow_nonfinite=options.allow_nonfinite,
            options=options.planning(),
        )

    @property
    def begins_with(self) -> str:
        """The name of the base, or of the first model where there is none."""
        base = self._config.base_model
        return self.plan.stored[0].name if base is None else parts_of(base)[0]

    @property
    def adds(self) -> bool:
        """Whether the merge is something that is added to a model."""
        adapted = any(model.is_adapted for model in self.plan.checkpoints)
        return adapted or self._config.base_model is not None

    def _check(self, found: Checkpoint) -> None:
        if self.plan.fallback is not None:
            raise InputError(
                f"tensor `{self.plan.fallback.tensors[0]}` is left to mergekit's executor, which is"
                " not replayed",
                "merge again by `mergeplan merge`, and compare by `mergeplan diff`",
            )
        for model in self.plan.stored:
            if set(model.files) & set(found.files):
                what = f"`{found.name}` is an input of the merge itself"
                raise InputError(what, "give the folder of what is said to be its output")

    def _stored(self, one: Pair) -> Job:
        tensor = self._by_own_name[one.theirs]
        at = TensorRef(0, one.theirs)
        how: Merge = Copy((at,))
        if self._found.made:
            how = Group(FLOATS[tensor.dtype], Passthrough(None), None, (at,))
        return Job(one.tensor, tensor.shape, tensor.dtype, how)

    @cached_property
    def _by_own_name(self) -> dict[str, Tensor]:
        return {self._found.own_name(name): t for name, t in self._found.tensors.items()}

    @cached_property
    def _wide(self) -> "Source":
        """The same merge in float32."""
        config = replace(self._config, dtype="float32", out_dtype="float32")
        options = replace(self._options, lora_merge_dtype="float32", lora_exact=False)
        return Source(self._planned(config, options).data, options)

    @cached_property
    def _bases(self) -> "Source":
        """Where each tensor of the merge begins; jobs of the same names."""
        jobs = []
        for job in self.jobs:
            at = origin(self.plan, job) if job.out_dtype in FLOATS else None
            if at is not None:
                jobs.append(widened_input(job.tensor, job, at))
        return self._source(jobs)

    @cached_property
    def _inputs(self) -> "Source":
        """The models of each tensor that is trimmed, by `_input_name`."""
        return self._source(
            [
                widened_input(_input_name(job, number), job, TensorRef(one.model, one.tensor))
                for job in self.jobs
                if isinstance(job.merge, Delta) and job.merge.sparsify in _TRIMS
                for number, one in enumerate(job.merge.references)
            ]
        )

    def _source(self, jobs: Sequence[Job]) -> "Source":
        data = replace(self.plan.data, jobs=tuple(jobs), allow_nonfinite=True)
        return Source(data, self._options)

    def batches(self) -> Iterator[tuple[int, int]]:
        """Ranges of jobs."""
        first = 0
        while first < len(self.jobs):
            last, n_bytes = first, 0
            while last < len(self.jobs) and (last == first or n_bytes < _BATCH_BYTES):
                n_bytes += self.jobs[last].n_bytes
                last += 1
            yield first, last
            first = last

    def compare(self, first: int, last: int, tolerance: float | None) -> list[ReplayedTensor]:
        """Judge the tensors of some jobs."""
        places = [n for n, one in enumerate(self.pairs.found) if first <= one.job < last]
        if not places:
            return []
        pairs = [self.pairs.found[place] for place in places]
        theirs = self._theirs.read(places[0], [self._by_own_name[p.theirs].dtype for p in pairs])
        dtypes = [job.out_dtype for job in self.jobs[first:last]]
        for one, side in zip(pairs, theirs, strict=True):
            # In the dtype that was found, as whoever wrote it rounded.
            if {side.dtype, dtypes[one.job - first]} <= FLOATS.keys():
                dtypes[one.job - first] = side.dtype
        ours = self._ours.read(first, dtypes)
        return [
            self._judged(one, x, ours[one.job - first], tolerance)
            for one, x in zip(pairs, theirs, strict=True)
        ]

    def _judged(self, one: Pair, x: Side, whole: Side, tolerance: float | None) -> ReplayedTensor:
        job = self.jobs[one.job]
        shape = self._by_own_name[one.theirs].shape
        n = prod(one.shape)
        detail = one.detail
        name = one.theirs
        padded = False
        if shape != one.shape:
            detail = f"shape {list(shape)}, expected {list(one.shape)}"
            padded = shape[1:] == one.shape[1:] and has_row_per_token(one.tensor)
            if not padded:
                return ReplayedTensor(one.tensor, "shape", name, detail=detail)
            n = min(prod(shape), n)
        x, r = part(x, 0, n), part(whole, one.begin, n)
        if x.dtype != r.dtype and not (is_floating(x.dtype) and is_floating(r.dtype)):
            detail = f"{torch_name(x.dtype)}, expected {torch_name(job.out_dtype)}"
            return ReplayedTensor(one.tensor, "dtype", name, detail=detail)
        close, free = self._close(one, x, r, n, tolerance)
        self.changes_something |= close.changes
        status: Status = "threshold" if free else close.status
        if padded:
            rows = n // max(prod(one.shape[1:]), 1)
            detail += f"; the first {rows} rows: {status}"
            status = "shape"
        elif close.unmatched:
            told = f"{close.unmatched} {NOT_FINITE}"
            detail = f"{detail}; {told}" if detail else told
        elif not free and (doubt := _doubt(job, close)):
            status, detail = "could not tell", doubt
        return ReplayedTensor(
            tensor=one.tensor,
            status=status,
            found=name,
            elements=close.elements,
            differing=close.differing,
            ulps=close.ulps,
            ulp_dtype=torch_name(close.ulp_dtype),
            factor=close.factor if status in ("strength", "unknown") else None,
            relative_l2=close.relative_l2,
            cosine=close.cosine,
            changes=close.changes,
            detail=detail,
        )

    def _close(
        self, one: Pair, x: Side, r: Side, n: int, tolerance: float | None
    ) -> tuple[Closeness, bool]:
        """How near they are, and whether all that differs are ties at a trim's threshold."""
        job = self.jobs[one.job]
        if x.dtype == r.dtype and np.array_equal(x.raw, r.raw):
            # One tensor that the merge changes is enough: the base is read no further.
            changes = not leaves_as_is(self.plan, job) and (
                self.changes_something or self._changes(one, r, n)
            )
            return Closeness("equal", n, changes=changes), False
        if not is_floating(x.dtype):
            return bytes_equal(x, r, n), False
        own = self._bases.named(job.tensor, x.dtype) if x.dtype in FLOATS else None
        if own and x.dtype == r.dtype and np.array_equal(x.raw, part(own, one.begin, n).raw):
            return untouched(x, r), False
        b = self._bases.named(job.tensor)
        w = self._wide.named(job.tensor) if b is not None else None
        w, b = (None if side is None else part(side, one.begin, n) for side in (w, b))
        close = judge(x, r, w, b, job.out_dtype, tolerance)
        trims = isinstance(job.merge, Delta) and job.merge.sparsify in _TRIMS
        if close.status != "unknown" or not trims or x.dtype != r.dtype:
            return close, False
        free, most = self._free(job)
        mixed = excused(x, r, free[one.begin : one.begin + n], most)
        if mixed is None:
            return close, False
        rest = judge(mixed, r, w, b, job.out_dtype, tolerance)
        return close, rest.status in ("equal", "rounding")

    def _changes(self, one: Pair, r: Side, n: int) -> bool:
        """Whether a tensor of the replay is another than the base's, in its dtype."""
        job = self.jobs[one.job]
        if r.dtype not in FLOATS:
            return False
        own = self._bases.named(job.tensor, r.dtype)
        if own is None:
            return True
        b = part(own, one.begin, n)
        return any(values_differ(r.values(*at), b.values(*at)).any() for at in pieces(n))

    def _free(self, job: Job) -> tuple[Mask, float]:
        """Where a trim may keep or drop, and the most that it matters."""
        assert isinstance(job.merge, Delta)
        working = STORED_NAMES[job.merge.dtype]
        free = np.zeros(job.n_elements, bool)
        most = 0.0
        base = self._rounded(job, 0, working)
        for number, one in enumerate(job.merge.inputs, 1):
            delta = rounded(self._rounded(job, number, working) - base, working)
            free |= at_thresholds(delta, 1.0 if one.density is None else one.density, one.gamma)
            most += float(np.abs(delta).max(initial=0.0)) * max(abs(one.weight), 1.0)
        return free, most * max(abs(job.merge.lambda_), 1.0)

    def _rounded(self, job: Job, number: int, dtype: str) -> Values:
        side = self._inputs.named(_input_name(job, number))
        assert side is not None
        return rounded(side.values(0, job.n_elements), dtype)


def _input_name(job: Job, number: int) -> str:
    return f"{number} of {job.tensor}"


def _doubt(job: Job, close: Closeness) -> str | None:
    """Why a tensor that is another may be the merge's nevertheless."""
    if close.status in ("equal", "rounding") or (close.status == "not applied" and not close.ulps):
        return None
    if isinstance(job.merge, Delta) and job.merge.sparsify in _RANDOM:
        return "random masks of another seed or program"
    method = job.merge.method if isinstance(job.merge, Group) else None
    few = close.differing <= max(2 * MOST * close.elements, FEW)
    if few and isinstance(method, Sce | ArceeFusion):
        return f"{method.name} selects elements, of equal ones any"
    return None
