"""Where workers work: a device's streams, and their share of its memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch

from mergeplan.merging.torch.device import Device, memory_fraction

# Workers of a device: one tensor's end is another's middle.
_WORKERS = 4
# A worker with less device memory than this is one too many: in shorter pieces a GPU takes less
# time to do things than to be told of them.
_LEAST_BYTES = 512 << 20
# But a second one has half of that: one alone has nothing to do at a tensor's end.
_LEAST_OF_TWO = 256 << 20
# Of a worker's share, what is planned: the allocator rounds up, and its blocks do not always fit.
_PLANNED = 0.85


@dataclass(frozen=True)
class Place:
    """Where a worker works.

    Attributes:
        share_bytes: Device memory that it plans with.
        stream: Where it computes, and copies down; `None` on a CPU.
        upward: Where it copies up.
    """

    device: Device
    share_bytes: int
    stream: "torch.cuda.Stream | None" = None
    upward: "torch.cuda.Stream | None" = None

    @classmethod
    def of(cls, device: Device, workers: int) -> "Place":
        """One of so many on a device."""
        share = int(device.limit_bytes * _PLANNED) // workers
        if not device.is_gpu:
            return cls(device, share)
        return cls(device, share, *(torch.cuda.Stream(device.name) for _ in range(2)))

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


def workers_of(device: Device) -> int:
    """How many a device has room for."""
    many = min(_WORKERS, device.limit_bytes // _LEAST_BYTES)
    return max(many, min(2, device.limit_bytes // _LEAST_OF_TWO), 1)


@contextmanager
def held(gpus: Sequence[Device]) -> Iterator[list[int]]:
    """Hold the allocator to the limits: more is refused then, and tensors are cut smaller.

    What the process had before, a model perhaps, is its own.

    Yields:
        A list that has each GPU's peak in the end, beyond what was there before.
    """
    before: dict[str, tuple[int, float]] = {}
    peaks: list[int] = []
    for device in gpus:
        with suppress(RuntimeError):  # of a device that is lost: its workers say so
            # Whatever used the memory that will be written, or may be taken, is done with it.
            torch.cuda.synchronize(device.name)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device.name)
            had, share = torch.cuda.memory_reserved(device.name), memory_fraction(device.name)
            before[device.name] = had, share
            total = torch.cuda.get_device_properties(device.name).total_memory
            # One byte more, which rounding may take away.
            lower = min(share, (had + device.limit_bytes + 1) / total)
            torch.cuda.set_per_process_memory_fraction(lower, device.name)
    try:
        yield peaks
    finally:
        for name, (had, share) in before.items():
            with suppress(RuntimeError):
                peaks.append(torch.cuda.max_memory_reserved(name) - had)
                torch.cuda.set_per_process_memory_fraction(share, name)
        if before:
            with suppress(RuntimeError):
                torch.cuda.empty_cache()  # no other stream gets what the workers' kept
