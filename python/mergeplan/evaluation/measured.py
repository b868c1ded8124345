"""What a run has measured: a line of `scores.jsonl` for each merge, with each document's loss."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mergeplan.evaluation.options import BY_DOCUMENT, Cut
from mergeplan.evaluation.scores import DocumentLosses, Scores
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.ranges import Magnitude
from mergeplan.system.reading import RUN as RUN_KIND
from mergeplan.system.reading import SCORES as KIND
from mergeplan.system.reading import decode, read_bytes
from mergeplan.system.strict import load_strictly, parse_strictly

RUN, SCORES = "run.json", "scores.jsonl"


@dataclass(frozen=True)
class MeasuredMerge:
    """A merge and its losses.

    Attributes:
        seconds: Time that merging and evaluating took.
    """

    merge: SubsetMerge
    scores: Scores
    seconds: tuple[float, float]


@dataclass(frozen=True)
class ScoresLine:
    """A line of scores.jsonl: a `MeasuredMerge`."""

    merge: SubsetMerge
    seconds: tuple[Magnitude, Magnitude]
    scores: dict[str, DocumentLosses]


@dataclass(frozen=True)
class RunTexts:
    """What `run.json` says of the texts.

    Attributes:
        texts: The hash of each size's tokens.
        halves: How their halves were cut.
        arithmetic: Options that decide what a loss is.
    """

    texts: dict[str, str]
    halves: Cut = BY_DOCUMENT
    arithmetic: dict[str, Any] = field(default_factory=dict)


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
    end = content.rfind(b"\n") + 1
    found = {}
    for number, line in enumerate(decode(content[:end], path).splitlines(), 1):
        data = parse_strictly(line, ScoresLine, f"`{path}`, line {number}")
        measured = MeasuredMerge(data.merge, Scores.from_data(data.scores), data.seconds)
        found[measured.merge.key] = measured
    return found, end


def scores_line(measured: MeasuredMerge) -> bytes:
    """A line for `scores.jsonl`; groups stand in it where documents have some."""
    line = ScoresLine(measured.merge, measured.seconds, measured.scores.to_data())
    data = asdict(line)
    for domain in data["scores"].values():
        if not domain["groups"]:
            del domain["groups"]
    return json.dumps(data).encode() + b"\n"
