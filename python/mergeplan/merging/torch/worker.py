"""One worker: what it does with a tensor, and in pieces of what size."""

import math
from contextlib import closing
from dataclasses import dataclass

import torch

from mergeplan.merging.torch.arithmetic import all_finite
from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.errors import is_short
from mergeplan.merging.torch.loading import PieceLoader
from mergeplan.merging.torch.storing import BLOCK, Store
from mergeplan.merging.torch.sweeps import LeaveToCoreError, Pieces
from mergeplan.merging.torch.task import Queue, Task

# Longer pieces would leave workers with nothing to overlap.
_MOST_ELEMENTS = 1 << 25
# How often a tensor is tried again in smaller pieces, when memory is short all the same.
_TRIES = 4


@dataclass(frozen=True)
class Worker:
    """What computes one task after the other.

    Attributes:
        share_bytes: Device memory that it plans with.
    """

    loader: PieceLoader
    store: Store
    share_bytes: int

    def merge(self, task: Task, queue: Queue, device: Device) -> None:
        """Compute a task, in smaller pieces where memory is short; or leave it to the core."""
        short = False
        for attempt in range(_TRIES):
            try:
                with torch.no_grad():
                    self._try(task, self.share_bytes >> attempt, queue)
                queue.done(task)
                if short:
                    queue.note(
                        f"device `{device.name}` is short of memory: pieces were made smaller"
                    )
                return
            except LeaveToCoreError:
                break
            except RuntimeError as error:
                if not is_short(error):
                    raise
                short = True
        queue.left.append(task)
        if short:
            queue.note(
                f"device `{device.name}` has too little memory left: the CPU merges some tensors"
            )

    def _try(self, task: Task, share: int, queue: Queue) -> None:
        piece, keep = _piece_elements(task, share)
        pieces = Pieces(self.loader, task.length, piece, keep, queue.note)
        with closing(pieces):
            for member in task.members:
                sweep = pieces.sweep(member.read, member.program.working)
                self.store.begin(member.output, member.job, task.length)
                for start, values in member.program.run(sweep):
                    queue.check()
                    out = values.to(member.dtype)
                    self.store.put(start, out, sweep.finite & all_finite(out))
                self.store.finish()
        self.loader.release(task.inputs)


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
    # A whole tensor stays where its next piece would come.
    room = free - piece * each + (piece * stored if piece == task.length else 0)
    return piece, max(0, room) if again else 0
