"""Tensors that our core cannot compute: mergekit's own executor does, one at a time."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from mergekit.graph import Executor, Task, TaskUniverse
from mergekit.io.tasks import SaveTensor

from mergeplan.checkpoints.dtypes import FLOATS, STORED_NAMES, bits_of, torch_dtype
from mergeplan.checkpoints.plan_models import Model, TensorRef
from mergeplan.errors import InputError
from mergeplan.planning.document import Copy, Group, Job, Merge, Plan
from mergeplan.planning.group_methods import Passthrough
from mergeplan.planning.mergekit.models import CheckpointLoader, OpenModel, loaders
from mergeplan.planning.mergekit.silence import quietly

# Memory for the core while it reads a tensor.
_READ_BYTES = 64 << 20


@dataclass(frozen=True)
class FallbackTensor:
    """One such tensor.

    Attributes:
        dtype: safetensors' name of the output's.
        n_inputs: How many tensors go in.
        working: Torch name of the dtype of the arithmetic.
    """

    save: SaveTensor
    dtype: str
    shape: tuple[int, ...]
    n_inputs: int
    working: str

    @property
    def n_bytes(self) -> int:
        return prod(self.shape) * bits_of(self.dtype) // 8

    @property
    def memory_bytes(self) -> int:
        """Anonymous memory that mergekit may take for it.

        The inputs as read and as cast; the most that one of its methods holds at a time (deltas,
        signs, masks and their product, or a sort); the result, and its bytes.
        """
        n, each = prod(self.shape), bits_of(STORED_NAMES[self.working]) // 8
        inputs = self.n_inputs * n * (8 + each)
        return inputs + max(5 * self.n_inputs * n * each, 24 * n) + n * each + 2 * self.n_bytes


class MergekitExecutor:
    """mergekit's executor, on the models of a plan.

    Args:
        done: Tasks whose values are there already: the output's tokenizer.
    """

    def __init__(
        self,
        given: Mapping[str, FallbackTensor],
        models: Mapping[OpenModel, CheckpointLoader],
        done: Mapping[Task, Any],
        seed: int,
    ) -> None:
        self._given = dict(given)
        self._models = dict(models)
        self._done = dict(done)
        self._seed = seed

    @property
    def tensors(self) -> list[str]:
        """Names of the tensors, in the order of the plan."""
        return list(self._given)

    @property
    def n_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(given.n_bytes for given in self._given.values())

    @property
    def memory_bytes(self) -> int:
        """Anonymous memory that the largest may take."""
        return max((given.memory_bytes for given in self._given.values()), default=0)

    def element_bytes(self, name: str) -> int:
        """Bytes of an element of a tensor."""
        return bits_of(self._given[name].dtype) // 8

    def compute(self, name: str) -> memoryview:
        """The bytes of one tensor.

        Random masks depend on seed and name alone, and torch runs on one thread, so that the bytes
        are the same whenever they are computed.

        Raises:
            InputError: mergekit refuses.
        """
        given = self._given[name]
        threads = torch.get_num_threads()
        state = torch.random.get_rng_state()
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little"))
        torch.set_num_threads(1)
        try:
            with quietly(), loaders(self._models):
                universe = TaskUniverse([given.save.tensor_task])
                target = universe.add_task(given.save.tensor_task)
                done = {universe.add_task(task): value for task, value in self._done.items()}
                executor = Executor([target], cached_values=done)
                (result,) = [value for _, value in executor.run(quiet=True)]
        except Exception as error:
            raise InputError(f"tensor `{name}`: mergekit cannot merge it: {error}") from error
        finally:
            torch.set_num_threads(threads)
            torch.random.set_rng_state(state)
        tensor = result.to(torch_dtype(given.dtype)).contiguous()
        return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def read_tensor(
    models: tuple[Model, ...], reference: TensorRef, dtype: str, shape: tuple[int, ...]
) -> torch.Tensor:
    """A tensor of a plan's models, however it is stored or computed; our core reads it.

    Args:
        dtype: safetensors' name.
    """
    from mergeplan._native import PreparedFamily

    tensor = torch.empty(shape, dtype=torch_dtype(dtype))
    merge: Merge = Copy((reference,))
    if dtype in FLOATS:
        merge = Group(FLOATS[dtype], Passthrough(None), None, (reference,))
    job = Job("tensor", shape, dtype, merge)
    plan = Plan(0, allow_nonfinite=True, max_shard_bytes=1 << 60, models=models, jobs=(job,))
    family = PreparedFamily([plan.json()])
    memory = max(family.forecast(1)["least_memory_bytes"], _READ_BYTES)
    place = tensor.reshape(-1).view(torch.uint8).numpy()
    family.run_into([(0, 0, [(place, dtype)])], threads=1, memory_bytes=memory)
    return tensor
