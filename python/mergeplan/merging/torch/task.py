"""What is to be done on devices, and what became of it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mergeplan.merging.torch.loading import Input
from mergeplan.merging.torch.program import Program


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
        """The inputs that the program reads, in its order."""
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
        """Of all that is read."""
        stored: int = sum(one.dtype.itemsize for one in self.inputs)
        return self.length * stored


class StoppedError(Exception):
    """Another worker failed, or somebody wants the run to end."""


class Queue:
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
        """Input bytes of the tasks that are complete."""
        return sum(list(self._done))

    def next(self) -> Task | None:
        """The largest that nobody has begun."""
        self.check()
        try:
            return self.tasks.popleft()
        except IndexError:
            return None

    def done(self, task: Task) -> None:
        """A task is complete."""
        self._done.append(task.n_bytes)

    def note(self, text: str) -> None:
        """Something to say to whoever asked for the merge; once is enough."""
        self.warnings.add(text)

    def check(self) -> None:
        """Raise where the run is to end."""
        if self.stopped:
            raise StoppedError

    def fail(self, error: BaseException) -> None:
        """End the run for all."""
        self.error = self.error or error
        self.stopped = True
