"""What a run has measured: a line of `scores.jsonl` for each merge, with each document's loss."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from mergeplan.evaluation.options import BY_DOCUMENT, Cut
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.evaluation.scores import Better, DocumentLosses, Scores, TaskScore
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.ranges import Magnitude, Number, within
from mergeplan.system.reading import RUN as RUN_KIND
from mergeplan.system.reading import SCORES as KIND
from mergeplan.system.reading import decode, read_bytes
from mergeplan.system.strict import load_strictly, parse_strictly

# Forward passes that a measurement with slopes takes the time of.
WITH_SLOPES = 3
RUN, SCORES = "run.json", "scores.jsonl"


@dataclass(frozen=True)
class MergeSlopes:
    """How a merge's losses move with the weights of its pool's experts.

    Attributes:
        experts: Names, those that are not merged too.
        domains: For each domain a slope for each expert, in nats per token for one more of its
            weight; see `measurements.slopes`.
    """

    experts: tuple[str, ...]
    domains: dict[str, tuple[Number, ...]]

    def __post_init__(self) -> None:
        if any(len(slopes) != len(self.experts) for slopes in self.domains.values()):
            raise ValueError("a slope for each expert")


@dataclass(frozen=True)
class MeasuredMerge:
    """A merge and its losses.

    Attributes:
        seconds: Time that merging and evaluating took.
        tasks: What downstream tasks came to, with each item's score.
        parts: Of the texts, that it was scored on, see `parts`; `None` where that is all.
        slopes: Of its losses, where they were measured with them.
    """

    merge: SubsetMerge
    scores: Scores
    seconds: tuple[float, float]
    tasks: tuple[TaskScore, ...] = ()
    parts: int | None = None
    slopes: MergeSlopes | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of forward passes that it took; a backward pass counts as two of them."""
        return self.scores.n_tokens * (1 if self.slopes is None else WITH_SLOPES)


@dataclass(frozen=True)
class TaskLine:
    """A `TaskScore` as a file holds it: `None` where there is no finite number."""

    task: str
    metric: str
    value: Number | None
    se: Magnitude | None
    better: Better
    n_documents: Annotated[int, Ge(0), Lt(2**62)]
    items: tuple[Number, ...] = ()

    @classmethod
    def of(cls, score: TaskScore) -> "TaskLine":
        value, se = within((score.value, score.se))
        items = () if None in within(score.items) else score.items
        return cls(score.task, score.metric, value, se, score.better, score.n_documents, items)

    def score(self) -> TaskScore:
        value, se = (math.nan if one is None else one for one in (self.value, self.se))
        return TaskScore(
            self.task, self.metric, value, se, self.better, self.n_documents, self.items
        )


@dataclass(frozen=True)
class ScoresLine:
    """A line of scores.jsonl: a `MeasuredMerge`."""

    merge: SubsetMerge
    seconds: tuple[Magnitude, Magnitude]
    scores: dict[str, DocumentLosses]
    tasks: tuple[TaskLine, ...] = ()
    parts: Annotated[int, Ge(1), Lt(N_PARTS)] | None = None
    slopes: MergeSlopes | None = None


@dataclass(frozen=True)
class RunTexts:
    """What `run.json` says of the texts.

    Attributes:
        texts: The hash of each size's tokens.
        halves: How their halves were cut.
        arithmetic: Options that decide what a loss is.
        metric: What was measured; empty for losses in nats.
    """

    texts: dict[str, str]
    halves: Cut = BY_DOCUMENT
    arithmetic: dict[str, Any] = field(default_factory=dict)
    metric: str = ""


def recorded_texts(folder: Path) -> RunTexts | None:
    """What a run was measured on; `None` where the folder is none of a run.

    Raises:
        InputError: The record is damaged.
    """
    path = folder / RUN
    return load_strictly(path, RunTexts, RUN_KIND) if path.is_file() else None


def read_scores(folder: Path) -> list[MeasuredMerge]:
    """What a run has measured so far; nothing is held or changed.

    Raises:
        InputError: A line is damaged.
    """
    path = folder / SCORES
    found, _ = parse_scores(read_bytes(path, KIND) if path.exists() else b"", path)
    return list(found.values())


def parse_scores(content: bytes, path: Path) -> tuple[dict[str, MeasuredMerge], int]:
    """The measurements by their merge's key, and where they end: the last line of a run that was
    killed may be torn.

    Raises:
        InputError: A line is damaged.
    """
    lines, end = parse_lines(content, path)
    return {one.merge.key: one for one in lines}, end


def parse_lines(content: bytes, path: Path) -> tuple[list[MeasuredMerge], int]:
    """The same, of all lines: a merge that was scored on more documents later has several.

    Raises:
        InputError: A line is damaged.
    """
    end = content.rfind(b"\n") + 1
    found = []
    for number, line in enumerate(decode(content[:end], path).splitlines(), 1):
        data = parse_strictly(line, ScoresLine, f"`{path}`, line {number}")
        measured = MeasuredMerge(
            data.merge,
            Scores.from_data(data.scores),
            data.seconds,
            tuple(task.score() for task in data.tasks),
            data.parts,
            data.slopes,
        )
        found.append(measured)
    return found, end


def scores_line(measured: MeasuredMerge) -> bytes:
    """A line for `scores.jsonl`; groups and tasks stand in it where there are some."""
    tasks = tuple(map(TaskLine.of, measured.tasks))
    scores = measured.scores.to_data()
    line = ScoresLine(
        measured.merge, measured.seconds, scores, tasks, measured.parts, measured.slopes
    )
    data = asdict(line)
    if not tasks:
        del data["tasks"]
    for name in ("parts", "slopes"):
        if data[name] is None:
            del data[name]
    for domain in data["scores"].values():
        if not domain["groups"]:
            del domain["groups"]
    return json.dumps(data, allow_nan=False).encode() + b"\n"
