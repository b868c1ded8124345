"""Workers that take one tensor after the other, each on a stream of its own.

Reading, copying up, computing, copying down and writing of several tensors overlap: a worker waits
for its own stream alone, and hashes and writes without the interpreter's lock.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch

from mergeplan.merging.torch.arithmetic import all_finite
from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.loading import Input, PieceLoader, Staging
from mergeplan.merging.torch.program import Program
from mergeplan.merging.torch.storing import BLOCK, Store
from mergeplan.merging.torch.sweeps import LeaveToCoreError, Pieces

# Streams of a device: enough for each of the five steps to be busy.
_WORKERS = 4
# A worker with less device memory than this, or less host memory, is one too many: in shorter
# pieces a GPU takes less time to do things than to be told of them.
_LEAST_DEVICE, _LEAST_HOST = 512 << 20, 16 << 20
# Of a worker's share, what is planned: the allocator rounds up, and its blocks do not always fit.
_PLANNED = 0.85
# Longer pieces would leave the workers with nothing to overlap.
_MOST_ELEMENTS = 1 << 25
# How often a tensor is tried again in smaller pieces, when memory is short all the same.
_TRIES = 4
_POLL_SECONDS = 0.05
# Makes a worker's store, with so many bytes of host memory.
MakeStore = Callable[[torch.device, int], Store]


@dataclass(frozen=True)
class Member:
    """A merge of a task's tensor.

    Attributes:
        output, job: Where the result goes.
        inputs: All that the program's numbers refer to.
    """

    output: int
    job: int
    program: Program
    inputs: tuple[Input, ...]
    dtype: torch.dtype

    @property
    def read(self) -> list[Input]:
        return [self.inputs[number] for number in self.program.inputs]


@dataclass(frozen=True, eq=False)
class Task:
    """One tensor, in one merge or several."""

    length: int
    members: tuple[Member, ...]

    @property
    def inputs(self) -> list[Input]:
        """What any of them reads, each once."""
        return list({one.identity: one for member in self.members for one in member.read}.values())

    @property
    def n_bytes(self) -> int:
        stored: int = sum(one.dtype.itemsize for one in self.inputs)
        return self.length * stored


@dataclass
class Outcome:
    """What became of some tasks.

    Attributes:
        left: Tasks for the core.
        peak_bytes: Device memory that the allocator handed out at most; 0 on a CPU.
    """

    left: list[Task] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    peak_bytes: int = 0


class Engine:
    """Devices that merge.

    Args:
        make_loader: Gives a worker's way from the files.
        host_bytes: Memory for all workers' buffers.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        make_loader: Callable[[torch.device, Staging], PieceLoader],
        host_bytes: int,
    ) -> None:
        self._make_loader = make_loader
        most = max(1, host_bytes // (_LEAST_HOST * len(devices)))
        counts = [min(most, _workers(device)) for device in devices]
        self._host = host_bytes // sum(counts)
        pairs = list(zip(devices, counts, strict=True))
        self._devices = list(devices)
        # For good: what the allocator keeps for one stream, no other one gets.
        self._places = [_Place.of(d, count) for d, count in pairs for _ in range(count)]
        self._lost: set[Device] = set()

    def run(
        self, tasks: Sequence[Task], make_store: MakeStore, poll: Callable[[int], None]
    ) -> Outcome:
        """Do the tasks, the largest first: devices then end together, whatever each can do.

        Args:
            make_store: Says where results go.
            poll: Called all the time with the input bytes of the tasks that are done; what it
                raises ends the run, once the workers have stopped.
        """
        queue = _Queue(sorted(tasks, key=lambda task: -task.n_bytes))
        gpus = [one for one in self._devices if one.is_gpu and one not in self._lost]
        threads = [
            threading.Thread(target=self._work, args=(place, queue, make_store), daemon=True)
            for place in self._places
            if not (place.device.is_gpu and place.device in self._lost)
        ]
        with _held(gpus) as peaks:
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        poll(queue.done_bytes)
                        thread.join(_POLL_SECONDS)
                poll(queue.done_bytes)
            finally:
                queue.stopped = True
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
        if queue.error is not None:
            raise queue.error
        return Outcome(
            left=[*queue.left, *queue.tasks],
            warnings=sorted(queue.warnings),
            peak_bytes=max(peaks, default=0),
        )

    def _work(self, place: "_Place", queue: "_Queue", make_store: MakeStore) -> None:
        task = None
        try:
            with place.current() as device:
                staging = Staging(self._host * 3 // 4, device)  # more goes up than comes down
                store = make_store(device, self._host // 4)
                loader = self._make_loader(device, staging)
                worker = _Worker(loader, store, place.share_bytes)
                while (task := queue.next()) is not None:
                    _merge(worker, task, queue, place.device)
        except _Stopped:
            pass
        except BaseException as error:
            if not _is_lost(error):
                queue.fail(error)
                return
            self._lost.add(place.device)
            if task is not None:
                queue.tasks.append(task)
            queue.warnings.add(
                f"device `{place.device.name}` failed, and the merge goes on without it:"
                f" {str(error).splitlines()[0]}"
            )


@dataclass(frozen=True)
class _Place:
    """Where a worker works.

    Attributes:
        share_bytes: Device memory that it plans with.
        stream: `None` on a CPU.
    """

    device: Device
    share_bytes: int
    stream: "torch.cuda.Stream | None"

    @classmethod
    def of(cls, device: Device, workers: int) -> "_Place":
        share = int(device.limit_bytes * _PLANNED) // workers
        return cls(device, share, torch.cuda.Stream(device.name) if device.is_gpu else None)

    @contextmanager
    def current(self) -> Iterator[torch.device]:
        """Whatever is computed meanwhile is computed there."""
        if self.stream is None:
            yield torch.device(self.device.name)
            return
        with torch.cuda.device(self.device.name), torch.cuda.stream(self.stream):
            try:
                yield torch.device(self.device.name)
            finally:
                # Whoever uses the results, or frees them, does so on other streams.
                with suppress(RuntimeError):
                    self.stream.synchronize()


class _Stopped(Exception):
    """Another worker failed, or somebody wants the run to end."""


class _Queue:
    """What is to be done, and what became of it; every step is one operation of a deque or set."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = deque(tasks)
        self.left: deque[Task] = deque()
        self.warnings: set[str] = set()
        self.stopped = False
        self.error: BaseException | None = None
        self._done: deque[int] = deque()

    @property
    def done_bytes(self) -> int:
        return sum(list(self._done))

    def next(self) -> Task | None:
        self.check()
        try:
            return self.tasks.popleft()
        except IndexError:
            return None

    def done(self, task: Task) -> None:
        self._done.append(task.n_bytes)

    def check(self) -> None:
        if self.stopped:
            raise _Stopped

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stopped = True


@dataclass(frozen=True)
class _Worker:
    loader: PieceLoader
    store: Store
    share: int


def _merge(worker: _Worker, task: Task, queue: _Queue, device: Device) -> None:
    """Compute a task, in smaller pieces where memory is short; or leave it to the core."""
    short = False
    for attempt in range(_TRIES):
        try:
            with torch.no_grad():
                _try(worker, task, worker.share >> attempt, queue)
            queue.done(task)
            if short:
                queue.warnings.add(
                    f"device `{device.name}` is short of memory: pieces were made smaller"
                )
            return
        except LeaveToCoreError:
            break
        except torch.OutOfMemoryError:
            short = True
    queue.left.append(task)
    if short:
        queue.warnings.add(
            f"device `{device.name}` has too little memory left: the CPU merges some tensors"
        )


def _try(worker: _Worker, task: Task, share: int, queue: _Queue) -> None:
    piece, keep = _piece_elements(task, share)
    pieces = Pieces(worker.loader, task.length, piece, keep)
    for member in task.members:
        sweep = pieces.sweep(member.read, member.program.working)
        worker.store.begin(member.output, member.job, task.length)
        for start, values in member.program.run(sweep):
            queue.check()
            out = values.to(member.dtype)
            worker.store.put(start, out, sweep.finite & all_finite(out))
        worker.store.finish()
    worker.loader.release(task.inputs)


def _piece_elements(task: Task, share: int) -> tuple[int, int]:
    """Elements of a piece, and the bytes in which pieces may stay on the device.

    Raises:
        LeaveToCoreError: Not even the shortest piece has room.
    """
    programs = [member.program for member in task.members]
    align = math.lcm(*(program.align for program in programs))
    stored = sum(one.dtype.itemsize for one in task.inputs)
    out = max(member.dtype.itemsize for member in task.members)
    # The inputs of one piece come while the last one is being computed.
    each = 2 * stored + 2 * out + max(program.element_bytes for program in programs)
    free = share - max(program.fixed_bytes for program in programs)
    # All at once where that fits; else half of the room for a piece, half for those that stay.
    again = len(programs) > 1 or programs[0].sweeps > 1
    whole = math.lcm(align, BLOCK)
    piece = free // each
    if piece < task.length and again:
        piece //= 2
    piece = min(piece, max(_MOST_ELEMENTS, align))
    if piece >= task.length:
        piece = task.length
    else:
        piece = piece // whole * whole or piece // align * align
    if piece <= 0:
        raise LeaveToCoreError
    return piece, max(0, free - piece * each) if again else 0


def _workers(device: Device) -> int:
    return max(1, min(_WORKERS, device.limit_bytes // _LEAST_DEVICE))


@contextmanager
def _held(gpus: Sequence[Device]) -> Iterator[list[int]]:
    """Hold the allocator to the limits: more is refused then, and tensors are cut smaller.

    What the process had before, a model perhaps, is its own.

    Yields:
        A list that has each GPU's peak in the end, beyond what was there before.
    """
    before: dict[str, int] = {}
    peaks: list[int] = []
    for device in gpus:
        with suppress(RuntimeError):  # of a device that is lost: its workers say so
            # Whatever used the memory that will be written, or may be taken, is done with it.
            torch.cuda.synchronize(device.name)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device.name)
            before[device.name] = had = torch.cuda.memory_reserved(device.name)
            total = torch.cuda.get_device_properties(device.name).total_memory
            # One byte more, which rounding may take away.
            share = min(1.0, (had + device.limit_bytes + 1) / total)
            torch.cuda.set_per_process_memory_fraction(share, device.name)
    try:
        yield peaks
    finally:
        for name, had in before.items():
            with suppress(RuntimeError):
                peaks.append(torch.cuda.max_memory_reserved(name) - had)
                torch.cuda.set_per_process_memory_fraction(1.0, name)
        if before:
            with suppress(RuntimeError):
                torch.cuda.empty_cache()  # no other stream gets what the workers' kept


def _is_lost(error: BaseException) -> bool:
    """Whether a device no longer works, as torch says it."""
    lost = getattr(torch, "AcceleratorError", ())
    return isinstance(error, lost) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("CUDA error", "CUDA driver error"))
    )
