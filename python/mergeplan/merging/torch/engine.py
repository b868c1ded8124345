"""Workers that take one tensor after the other, each on a stream of its own.

Reading, copying up, computing, copying down and writing overlap, of several tensors and within one:
a worker has a thread that reads and one that writes, without the interpreter's lock, and waits for
its own stream alone, at the end of a sweep.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.errors import is_lost, is_short
from mergeplan.merging.torch.host import HostMemory
from mergeplan.merging.torch.loading import PieceLoader
from mergeplan.merging.torch.place import Place, held, workers_of
from mergeplan.merging.torch.storing import Store
from mergeplan.merging.torch.task import Queue, StoppedError, Task
from mergeplan.merging.torch.worker import Worker

if TYPE_CHECKING:
    from mergeplan._native import InputReader

# A worker with less host memory than this is one too many.
_LEAST_HOST = 16 << 20
_POLL_SECONDS = 0.05
# Makes a worker's store, with so many bytes of host memory.
MakeStore = Callable[[HostMemory, int], Store]


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
        reader: Reads the files.
        host_bytes: Memory for all workers' buffers.
    """

    def __init__(self, devices: Sequence[Device], reader: "InputReader", host_bytes: int) -> None:
        self._reader = reader
        most = max(1, host_bytes // (_LEAST_HOST * len(devices)))
        counts = [min(most, workers_of(device)) for device in devices]
        self._host = host_bytes // sum(counts)
        pairs = list(zip(devices, counts, strict=True))
        self._devices = list(devices)
        # For good: what the allocator keeps for one stream, no other one gets.
        self._places = [Place.of(d, count) for d, count in pairs for _ in range(count)]
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
        queue = Queue(sorted(tasks, key=lambda task: -task.n_bytes))
        gpus = [one for one in self._devices if one.is_gpu and one not in self._lost]
        threads = [
            threading.Thread(target=self._work, args=(place, queue, make_store), daemon=True)
            for place in self._places
            if not (place.device.is_gpu and place.device in self._lost)
        ]
        with held(gpus) as peaks:
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

    def _work(self, place: Place, queue: Queue, make_store: MakeStore) -> None:
        task = None
        try:
            with place.current() as device, ExitStack() as closing:
                host = HostMemory(device, queue.note)
                # More goes up than comes down.
                up, down = self._host * 3 // 4, self._host // 4
                loader = PieceLoader(self._reader, host, up, place.upward)
                closing.callback(loader.close)
                store = make_store(host, down)
                closing.callback(store.close)
                worker = Worker(loader, store, place.share_bytes)
                while (task := queue.next()) is not None:
                    worker.merge(task, queue, place.device)
        except StoppedError:
            pass
        except BaseException as error:
            if not (is_lost(error) or is_short(error)):
                queue.fail(error)
                return
            self._lost.add(place.device)
            if task is not None:
                queue.tasks.append(task)
            queue.note(
                f"device `{place.device.name}` failed, and the merge goes on without it:"
                f" {str(error).splitlines()[0]}"
            )
