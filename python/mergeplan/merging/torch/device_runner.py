"""Merge into files with devices: the runner that stands beside `runner.run_here`."""

import threading
from collections.abc import Callable, Iterable
from functools import partial

from mergeplan._native import InputReader, OutputFiles
from mergeplan.merging.checked import CheckedMerges
from mergeplan.merging.runner import Result, output_files
from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.engine import Engine
from mergeplan.merging.torch.splitting import LEAST_ELEMENTS, split
from mergeplan.merging.torch.storing import FileStore
from mergeplan.merging.torch.task import Task
from mergeplan.merging.workspace import Workspace
from mergeplan.system.memory import MemoryWatch
from mergeplan.system.progress import Progress

# Host memory for the way to the devices, however little is left beside torch.
_LEAST_HOST = 64 << 20


class DeviceRunner:
    """Merges on some devices; see `runner.Runner`.

    Args:
        least_elements: Smaller tensors are left to the core.
    """

    def __init__(self, devices: list[Device], least_elements: int = LEAST_ELEMENTS) -> None:
        self.devices = devices
        self._least = least_elements

    def __call__(
        self,
        checked: CheckedMerges,
        works: dict[int, Workspace],
        progress: Progress | None,
        watch: MemoryWatch,
    ) -> dict[int, Result]:
        """Merge into the data folders of some workspaces, by number of the merge."""
        numbers = list(works)
        merges = [checked.merges[number] for number in numbers]
        open_files = output_files(checked, works)
        reader = InputReader(checked.family, checked.threads)
        outputs = OutputFiles(
            checked.family,
            [(number, w.data, w.journal, w.resumed) for number, w in works.items()],
            checked.threads,
            open_files,
        )
        plans = [one.plan.data for one in merges]
        jobs = [
            (output, number, index)
            for output, (number, plan) in enumerate(zip(numbers, plans, strict=True))
            for index in range(len(plan.jobs))
            if not outputs.is_written(output, index)
        ]
        tasks, core = split(jobs, plans, reader, self._least)
        total = sum(task.n_bytes for task in tasks)
        # Half of the memory is for the way to the devices, half for what the core does meanwhile.
        half = checked.core_memory // 2
        least = checked.family.forecast(checked.threads)["least_memory_bytes"]
        engine = Engine(self.devices, reader, max(half, _LEAST_HOST))
        beside = _Beside(outputs, core, checked.threads, max(half, least))

        def poll(done: int) -> None:
            watch.sample()
            beside.check()
            if progress:
                progress(done, total)

        with beside:
            outcome = engine.run(tasks, partial(FileStore, outputs), poll)
            beside.wait(poll, total)
        left = [(m.output, m.job) for task in outcome.left for m in task.members]
        core_bytes = beside.read_bytes
        if left:
            core_bytes += outputs.run(
                left, threads=checked.threads, memory_bytes=checked.core_memory
            )
        watch.sample()
        found = outputs.finish()
        shared: Result = {
            "read_bytes": reader.read_bytes + core_bytes,
            "warnings": tuple(outcome.warnings),
            "peak_vram_bytes": outcome.peak_bytes,
        }
        done = [task for task in tasks if task not in outcome.left]
        return {
            number: {**one, **shared, "device_bytes": _written_bytes(done, output)}
            for output, (number, one) in enumerate(zip(numbers, found, strict=True))
        }


def _written_bytes(tasks: list[Task], output: int) -> int:
    members = [(task, member) for task in tasks for member in task.members]
    return sum(t.length * m.dtype.itemsize for t, m in members if m.output == output)


class _Beside:
    """The core's share, on a thread of its own."""

    def __init__(
        self, outputs: OutputFiles, jobs: Iterable[tuple[int, int]], threads: int, memory: int
    ) -> None:
        self._outputs, self._jobs = outputs, list(jobs)
        self._options = {"threads": threads, "memory_bytes": memory}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self._stopped = False
        self.read_bytes = 0

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()

    def check(self) -> None:
        """Raise what the core has found wrong."""
        if self._error is not None:
            raise self._error

    def wait(self, poll: Callable[[int], None], done: int) -> None:
        """Until the core is done."""
        while self._thread.is_alive():
            poll(done)
            self._thread.join(0.05)
        self.check()

    def _run(self) -> None:
        try:
            if self._jobs:
                self.read_bytes = self._outputs.run(
                    self._jobs, **self._options, progress=self._continue
                )
        except _CoreStopped:
            pass
        except BaseException as error:
            self._error = error

    def _continue(self, _done: int) -> None:
        if self._stopped:
            raise _CoreStopped


class _CoreStopped(Exception):
    """The run ends early."""
