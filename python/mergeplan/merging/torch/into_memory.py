"""Merge on devices into the memory of models that are loaded, on a GPU or not."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from mergeplan._native import InputReader, PreparedFamily
from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.engine import Engine
from mergeplan.merging.torch.host import HostMemory
from mergeplan.merging.torch.splitting import LEAST_ELEMENTS, split
from mergeplan.merging.torch.storing import ModelStore
from mergeplan.planning.document import Plan

if TYPE_CHECKING:
    from mergeplan.merging.torch.storing import Store

# Host memory for the way to the devices, however low the limit.
_LEAST_HOST = 64 << 20


class IntoMemory:
    """Merges of one family into tensors.

    Args:
        host_bytes: Memory for the way to the devices.
    """

    def __init__(
        self,
        family: PreparedFamily,
        devices: Sequence[Device],
        threads: int,
        host_bytes: int,
        least_elements: int = LEAST_ELEMENTS,
    ) -> None:
        self._reader = reader = InputReader(family, threads)
        self._least = least_elements
        self._engine = Engine(devices, reader, max(host_bytes, _LEAST_HOST))

    def merge(
        self,
        targets: Sequence[tuple[int, Plan, Mapping[str, torch.Tensor]]],
    ) -> tuple[int, list[tuple[int, int]]]:
        """Merge what devices can.

        Args:
            targets: Number of the merge, its plan, and where each tensor goes; one that goes
                nowhere is not computed.

        Returns:
            Input bytes read, and what is left for the core: number of the target, and of the job.
        """
        before = self._reader.read_bytes
        places = {
            (number, index): into[job.tensor].detach()
            for number, (_, plan, into) in enumerate(targets)
            for index, job in enumerate(plan.jobs)
            if job.tensor in into
        }
        jobs = [(number, targets[number][0], index) for number, index in places]
        plans = [plan for _, plan, _ in targets]
        tasks, core = split(jobs, plans, self._reader, self._least)

        def store(_host: HostMemory, _n_bytes: int) -> "Store":
            return ModelStore(places)

        outcome = self._engine.run(tasks, store, lambda _done: None)
        for warning in outcome.warnings:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        core += [(m.output, m.job) for task in outcome.left for m in task.members]
        return self._reader.read_bytes - before, core
