"""Merges into memory: tensor by tensor, into a loaded model, or many subsets in one pass."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.checkpoints.dtypes import STORED_NAMES
from mergeplan.config.config import AnyConfig, MergeConfig
from mergeplan.config.seed import seed_of
from mergeplan.errors import InputError
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.parameters import places_in, ties_head
from mergeplan.merging.pieces import Places, empty, pieces
from mergeplan.merging.targets import bytes_of, check_apart, places_of, takes_as_it_is
from mergeplan.planning.document import Job
from mergeplan.planning.opening import SharedModels, faultless
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.planner import build_plan
from mergeplan.system.files import allow_open_files
from mergeplan.system.machine import worker_threads
from mergeplan.system.memory import default_limit

if TYPE_CHECKING:
    import torch

    from mergeplan.merging.torch.into_memory import IntoMemory

# Tensors of a stream are merged in batches of so many bytes, or one by one where they are larger.
BATCH_BYTES = 64 << 20


class Sweep:
    """Merges of the same models, into memory.

    All inputs stay open. What does not depend on the subset (thresholds, norms, the streams of
    random masks) is computed once for each expert, and one pass over a tensor's inputs serves all
    merges that are wanted at a time. Each merge is what `mergeplan.merge` writes, whatever is
    merged beside or before it.

    Args:
        configs: One or several, each as `mergeplan.merge` takes it.
        options: For all of them.
        seeds: Of the random masks of each; by default the one of the options, or of each config.

    Raises:
        MissingInputError: A config or a model is not there.
        InputError: Config, headers, shapes, dtypes or options do not fit.
    """

    def __init__(
        self,
        configs: AnyConfig | Sequence[AnyConfig],
        options: MergeOptions | None = None,
        *,
        seeds: Sequence[int] | None = None,
    ) -> None:
        from mergeplan._native import PreparedFamily

        options = options or MergeOptions()
        if isinstance(configs, MergeConfig | Mapping | str | Path):
            configs = [configs]
        self._threads = options.threads or worker_threads()
        self._memory = options.memory_limit or default_limit(self._threads)
        each = [options.seed] * len(configs) if seeds is None else seeds
        if len(each) != len(configs):
            raise InputError(
                f"`seeds`: expected {len(configs)}, one for each config, found {len(each)}"
            )
        shared = SharedModels(options.planning().opening)
        self._plans = [plan_of(c, options, s, shared) for c, s in zip(configs, each, strict=True)]
        files = {f for plan in self._plans for c in plan.checkpoints for f in c.files}
        allow_open_files(len(files))
        headers = [one for plan in self._plans for one in plan.headers]
        self._family = PreparedFamily((plan.json() for plan in self._plans), headers)
        self._on_devices = self._devices(options) if options.device else None

    def _devices(self, options: MergeOptions) -> "IntoMemory | None":
        from mergeplan.merging.torch.device import find_devices

        devices = find_devices(options.device or "auto", options.vram_limit)
        if not devices:
            return None
        from mergeplan.merging.torch.into_memory import IntoMemory

        return IntoMemory(self._family, devices, self._threads, self._memory)

    def __len__(self) -> int:
        return len(self._plans)

    def _plan(self, number: int) -> MergePlan:
        if type(number) is not int or not 0 <= number < len(self):
            raise InputError(
                f"expected the number of a merge, from 0 to {len(self) - 1}, found {number!r:.100}"
            )
        return self._plans[number]

    def jobs(self, number: int) -> tuple[Job, ...]:
        """The tensors of a merge, in the plan's order."""
        return self._plan(number).data.jobs

    def shapes(self, number: int) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor that the merge has."""
        return {name: shape for job in self.jobs(number) for name, shape in job.stored.items()}

    def has_own_head(self, number: int) -> bool:
        """Whether a merge has a head that is not tied to its embedding."""
        return self._plan(number).has_own_head

    def merge_into(self, targets: Sequence[tuple[int, Mapping[str, "torch.Tensor"]]]) -> int:
        """Merge into tensors.

        Args:
            targets: Number of the merge, and where each of its tensors goes. One that is left out
                is merged and dropped. Memory that does not lie in row-major order on the CPU is
                filled through a copy of that tensor.

        Returns:
            Input bytes gone over, each as often as it was.

        Raises:
            InputError: A tensor has another shape, cannot be written to, or shares memory with
                another one or with an input's file; or input values are not finite. torch does not
                know of numpy's read-only arrays: of `from_numpy`, only memory that the system
                protects is refused.
        """
        for number, into in targets:
            if not isinstance(into, Mapping):
                raise InputError(f"expected tensors by name, found {type(into).__name__}")
            if unknown := sorted(into.keys() - self.shapes(number).keys()):
                raise InputError(f"the merge has no tensor `{unknown[0]}`")
        places = [Places(self.jobs(number), into) for number, into in targets]
        self.check_places(places)
        return self.fill([(n, place) for (n, _), place in zip(targets, places, strict=True)])

    def check_places(self, places: Sequence[Places]) -> None:
        """Check that tensors which will be filled together share no memory, and can be written to.

        Raises:
            InputError: They do, or cannot.
        """
        every = [item for place in places for item in place.given.items()]
        check_apart(every)
        self._family.check_writable(places_of(every))

    def fill(self, targets: Sequence[tuple[int, Places]]) -> int:
        """Merge into places that were checked; returns what `merge_into` does."""
        read = self._merge_all([(number, place.of_jobs) for number, place in targets])
        for _, place in targets:
            place.hand_out()
        return read

    def _merge_all(self, targets: Sequence[tuple[int, Mapping[str, "torch.Tensor"]]]) -> int:
        """The same with a place for each job's whole tensor."""
        if self._on_devices is None:
            return self._merge([(number, 0, self.jobs(number), into) for number, into in targets])
        read, left = self._on_devices.merge(
            [(number, self._plans[number].data, into) for number, into in targets]
        )
        some = [(*targets[target], job) for target, job in left]
        rest = [(number, job, [self.jobs(number)[job]], into) for number, into, job in some]
        return read + (self._merge(rest) if rest else 0)

    def stream(self, number: int) -> Iterator[tuple[str, "torch.Tensor"]]:
        """Yield name and merged tensor, in the plan's order; memory holds a batch of them."""
        jobs = self.jobs(number)
        first = 0
        while first < len(jobs):
            last, n_bytes = first, 0
            while last < len(jobs) and (last == first or n_bytes < BATCH_BYTES):
                n_bytes += jobs[last].n_bytes
                last += 1
            batch = {job.tensor: empty(job) for job in jobs[first:last]}
            self._merge([(number, first, jobs[first:last], batch)])
            for job in jobs[first:last]:
                yield from pieces(job, batch[job.tensor]).items()
            first = last

    def _merge(
        self, targets: Sequence[tuple[int, int, Sequence[Job], Mapping[str, "torch.Tensor"]]]
    ) -> int:
        memory = []
        staged: list[tuple[torch.Tensor, torch.Tensor]] = []
        for number, first, jobs, into in targets:
            regions = []
            for job in jobs:
                place = into.get(job.tensor)
                if place is None:
                    place = empty(job)
                buffer = place.detach()
                if not takes_as_it_is(buffer, job.out_dtype):
                    buffer = empty(job)
                    staged.append((place.detach(), buffer))
                name = str(buffer.dtype).removeprefix("torch.")
                regions.append((bytes_of(buffer), STORED_NAMES[name]))
            memory.append((number, first, regions))
        read = self._family.run_into(memory, threads=self._threads, memory_bytes=self._memory)
        for place, buffer in staged:
            place.copy_(buffer)
        return read


def stream(
    config: AnyConfig, options: MergeOptions | None = None
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield name and tensor of each merged tensor, without writing anything.

    Args:
        config, options: As for `Sweep`.

    Raises:
        MissingInputError, InputError: Config or inputs are at fault.

    Example:
        >>> import mergeplan
        >>> config = {"merge_method": "passthrough", "models": [{"model": "pool/js"}]}
        >>> weights = dict(mergeplan.stream(config))  # doctest: +SKIP
    """
    yield from Sweep([config], options).stream(0)


def merge_into(
    model: "torch.nn.Module", config: AnyConfig, options: MergeOptions | None = None
) -> None:
    """Give a loaded model the weights of a merge, in its own memory.

    The model then holds what loading the written merge would give it, in its own dtype.

    Args:
        model: A model of the inputs' architecture, wherever it is; parameters are written in place.
        config, options: As for `Sweep`.

    Raises:
        MissingInputError, InputError: Config or inputs are at fault, or a tensor has no place in
            the model, which is then as it was. Values that are not finite are found while the model
            is being written.

    Example:
        >>> import mergeplan
        >>> mergeplan.merge_into(model, "merge.yml")  # doctest: +SKIP
    """
    sweep = Sweep([config], options)
    if sweep.has_own_head(0) and ties_head(model):
        raise InputError(
            "the merge has a head of its own, and the model ties its head to the embedding",
            "load the model with `tie_word_embeddings=False`",
        )
    sweep.merge_into([(0, places_in(model, sweep.shapes(0)))])


def plan_of(
    config: AnyConfig, options: MergeOptions, seed: int | None, shared: SharedModels
) -> MergePlan:
    loaded = faultless(config, options.planning().opening)
    plan = build_plan(
        loaded,
        seed=seed_of(loaded.random_seed, seed, "the config")[0],
        max_shard_bytes=options.max_shard_bytes,
        allow_nonfinite=options.allow_nonfinite,
        options=options.planning(),
        shared=shared,
    )
    if plan.fallback is not None:
        raise InputError(
            f"tensor `{plan.fallback.tensors[0]}` is left to mergekit's executor, which merges into"
            " files alone",
            "merge in float32, bfloat16 or float16",
        )
    return plan
