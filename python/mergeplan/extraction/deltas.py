"""What a model has beyond its base, tensor by tensor, read by the code that merges."""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.extraction.factors import Matrix
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.streaming import plan_of
from mergeplan.planning.document import Job
from mergeplan.planning.opening import SharedModels
from mergeplan.system.files import allow_open_files
from mergeplan.system.machine import worker_threads
from mergeplan.system.memory import default_limit


class Deltas:
    """The difference of two models as a merge of both, of weights 1 and -1, in float32.

    So it is of whatever a merge can read: shards, 16 bits, scaled formats, base+adapter.

    Args:
        with_model: Whether tensors of the model itself are wanted too.

    Attributes:
        jobs: Its tensors, in the plan's order.
        config: The model's config.json.
        folders: Where the inputs are.

    Raises:
        MissingInputError, InputError: As for a merge of the two.
    """

    def __init__(self, model: str, base: str, options: MergeOptions, *, with_model: bool) -> None:
        from mergeplan._native import PreparedFamily

        self.threads = options.threads or worker_threads()
        self.memory_bytes = options.memory_limit or default_limit(self.threads)
        shared = SharedModels(options.planning().opening)
        both = [
            {"model": model, "parameters": {"weight": 1}},
            {"model": base, "parameters": {"weight": -1}},
        ]
        configs: list[dict[str, Any]] = [
            {
                "merge_method": "linear",
                "models": both,
                "parameters": {"normalize": False},
                "dtype": "float32",
            }
        ]
        if with_model:
            configs.append({"merge_method": "passthrough", "models": [{"model": model}]})
        plans = [plan_of(config, options, None, shared) for config in configs]
        self.jobs: tuple[Job, ...] = plans[0].data.jobs
        self.config: dict[str, Any] = plans[0].model_config
        self.folders: list[Path] = [one.path for one in plans[0].stored]
        allow_open_files(len({f for plan in plans for c in plan.checkpoints for f in c.files}))
        self._numbers = {job.tensor: number for number, job in enumerate(self.jobs)}
        self._wholes = (
            {job.tensor: (number, job) for number, job in enumerate(plans[1].data.jobs)}
            if with_model
            else {}
        )
        self._family = PreparedFamily(
            (plan.json() for plan in plans), [one for plan in plans for one in plan.headers]
        )
        self._lock = Lock()

    def read(self, job: Job) -> Matrix:
        """A difference, in float32."""
        found = np.empty(job.shape, np.float32)
        self._run(0, self._numbers[job.tensor], found, "F32")
        return found

    def stored(self, job: Job) -> NDArray[np.uint8]:
        """The bytes of the model's own tensor."""
        number, whole = self._wholes[job.tensor]
        found = np.empty(whole.n_bytes, np.uint8)
        self._run(1, number, found, whole.out_dtype)
        return found

    def stored_dtype(self, job: Job) -> str:
        """safetensors' name of the dtype of these."""
        return self._wholes[job.tensor][1].out_dtype

    def _run(self, plan: int, number: int, found: NDArray[Any], dtype: str) -> None:
        raw = found.reshape(-1).view(np.uint8)
        with self._lock:
            self._family.run_into(
                [(plan, number, [(raw, dtype)])],
                threads=self.threads,
                memory_bytes=self.memory_bytes,
            )
