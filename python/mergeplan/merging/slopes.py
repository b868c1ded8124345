"""How a loss moves with the weights of a merge's experts, given its gradient by the parameters.

A merge is base + Σ α_i v_i, so the slope of a loss along α_i is the inner product of its gradient
with v_i. The experts are streamed past the gradient, tensor by tensor, by the code that merges
them: v_i is what a merge adds for expert i, with its mask, its rescaling and lambda.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.checkpoints.dtypes import STORED_NAMES
from mergeplan.errors import InputError
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.streaming import plan_of
from mergeplan.merging.targets import bytes_of
from mergeplan.planning.document import Copy, Delta, Job, Mixed, Slope
from mergeplan.planning.opening import SharedModels
from mergeplan.system.files import allow_open_files
from mergeplan.system.machine import worker_threads
from mergeplan.system.memory import default_limit

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]


class Slopes:
    """The experts of one merge, open, to be multiplied with gradients.

    Exact for methods that elect no signs (average, linear, task arithmetic, dare_linear,
    della_linear, breadcrumbs), where the slope is along the weight after normalisation and is the
    same at all weights. Where signs are elected it is along the weight as the config has it, at
    these weights, the elected signs held as they are; at a weight of zero that of more weight.
    Along lambda it is exact whatever the method, at the config's weights and at any lambda, zero
    too.

    Args:
        config: Of a merge of all experts, as `mergeplan.merge` takes it: data with `models` and a
            `base_model`.
        options: How to read them; a device is not used.
        seed: Of random masks; by default the one of the options, or of the config.
        with_lambda: Whether the slope along lambda is wanted too.

    Attributes:
        jobs: The tensors that experts change, in the plan's order.
        n_experts: The models of the config but its base, in its order.
        n_slopes: Theirs, and behind them lambda's where it is wanted.
        n_bytes: Of the files of base and experts.
        memory_bytes: Anonymous memory that reading them may take.

    Raises:
        MissingInputError: A model is not there.
        InputError: The method has no slope, or headers, shapes, dtypes or options do not fit.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        options: MergeOptions | None = None,
        *,
        seed: int | None = None,
        with_lambda: bool = False,
    ) -> None:
        from mergeplan._native import PreparedFamily

        if with_lambda and config["merge_method"] == "linear":
            raise InputError("`linear` has no lambda", "write it as `task_arithmetic`")
        options = options or MergeOptions()
        self._threads = options.threads or worker_threads()
        self.memory_bytes = options.memory_limit or default_limit(self._threads)
        config = as_sum_of_deltas(config)
        self.n_experts = len(config["models"])
        self.n_slopes = self.n_experts + with_lambda
        seed = options.seed if seed is None else seed
        plan = plan_of(config, options, seed, SharedModels(options.planning().opening))
        self.jobs = _with_deltas(plan.data.jobs, self.n_experts)
        self._places = {job.tensor: place for place, job in enumerate(self.jobs)}
        allow_open_files(len({file for one in plan.checkpoints for file in one.files}))
        plans = (
            replace(plan.data, jobs=_along(self.jobs, number, self.n_experts)).json()
            for number in range(self.n_slopes)
        )
        self._family = PreparedFamily(plans, plan.headers)
        stored = {file for one in plan.stored for file in one.files}
        self.n_bytes = sum(file.stat().st_size for file in stored)

    def products(self, gradients: Mapping[str, Sequence["torch.Tensor"]]) -> dict[str, Array]:
        """Inner products with each expert's part of some tensors, in float64.

        The same numbers at any number of threads. Base and experts are read once, as far as memory
        goes.

        Args:
            gradients: By a job's tensor, one or several of its shape, in row-major order on the
                CPU.

        Returns:
            For each tensor the slopes, shape (n_gradients, n_slopes).

        Raises:
            InputError: Inputs changed or hold values that are not finite.
        """
        numbers = sorted(self._places[name] for name in gradients)
        vectors = [
            [(bytes_of(one), _stored(one)) for one in gradients[self.jobs[number].tensor]]
            for number in numbers
        ]
        runs = [
            list(some)
            for _, some in groupby(range(len(numbers)), key=lambda place: numbers[place] - place)
        ]
        asked = [
            (along, numbers[run[0]], [vectors[place] for place in run])
            for along in range(self.n_slopes)
            for run in runs
        ]
        found = self._family.products(asked, threads=self._threads, memory_bytes=self.memory_bytes)
        products = np.array([one for each in found for one in each])
        # As asked: by expert, then by tensor.
        products = products.reshape(self.n_slopes, len(numbers), -1)
        return {
            self.jobs[number].tensor: products[:, place].T for place, number in enumerate(numbers)
        }


def as_sum_of_deltas(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same merge as a base and deltas that are added to it, in float32.

    Raises:
        InputError: The method has no such form.
    """
    method, models = config["merge_method"], list(config["models"])
    found = {**config, "out_dtype": "float32"}
    if method == "linear":
        # A sum of whole models in which the base keeps the rest: its deltas summed, without a mask.
        found |= {"merge_method": "task_arithmetic", "parameters": {"normalize": False}}
        models = [one for one in models if one["model"] != config["base_model"]]
    return {**found, "models": models}


def _with_deltas(jobs: Sequence[Job], n_experts: int) -> tuple[Job, ...]:
    """Those that experts change. A copied buffer is the same in all of them.

    Raises:
        InputError: A tensor is merged by anything but its deltas, or not from all experts.
    """
    found = []
    for job in jobs:
        if isinstance(job.merge, Copy):
            continue
        if not isinstance(job.merge, Delta):
            raise InputError(
                f"tensor `{job.tensor}` is merged by no sum of deltas: it has no slope along a"
                " weight",
                "take a method such as task_arithmetic, ties or dare_linear, in float32 or less",
            )
        if len(job.merge.inputs) != n_experts:
            raise InputError(
                f"tensor `{job.tensor}`: expected it of {n_experts} experts, found"
                f" {len(job.merge.inputs)}"
            )
        found.append(job)
    return tuple(found)


def _along(jobs: Sequence[Job], number: int, n_experts: int) -> tuple[Job, ...]:
    """Jobs whose tensors are the slopes along an expert's weight, or behind these along lambda."""

    def slope(merge: Delta) -> Delta:
        return Slope.of(merge, number) if number < n_experts else Mixed.of(merge)

    return tuple(
        replace(job, merge=slope(job.merge), parts=None)
        for job in jobs
        if isinstance(job.merge, Delta)
    )


def _stored(tensor: "torch.Tensor") -> str:
    return STORED_NAMES[str(tensor.dtype).removeprefix("torch.")]
