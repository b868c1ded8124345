"""What is measured in one go, on one machine or on a worker of a cluster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mergeplan.evaluation.scores import Scores
from mergeplan.tuning.folder import Rows

# What documents are for; see `split`.
GRADIENT, ACCEPTING, REPORTING = PARTS = ("gradient", "accepting", "reporting")


@dataclass(frozen=True)
class Task:
    """One merge on some documents: what is done in one go.

    Attributes:
        merge: Weights by expert and group, or the YAML of another merge.
        part: Of the documents; one of `PARTS`. Those that give gradients give slopes too.
        domains: Whose gradients are taken.
    """

    merge: Rows | Path
    part: str
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What a task gave.

    Attributes:
        scores: Of every document; `None` of a task of gradients.
        losses, slopes, along_lambda: By domain; empty but of a task of gradients.
    """

    seconds: float
    scores: Scores | None = None
    losses: dict[str, float] | None = None
    slopes: dict[str, Rows] | None = None
    along_lambda: dict[str, float] | None = None


class Executor(Protocol):
    """Does tasks, in any order; the same numbers wherever one is done.

    Attributes:
        count: How many it does at a time.
    """

    count: int

    def each(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Done]]: ...
