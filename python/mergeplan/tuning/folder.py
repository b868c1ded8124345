"""The folder of a run of `tune`, and the points that it has measured.

RUN/
  tuning.json   what is measured: models, texts, options; a folder that has it is such a run
  points.jsonl  a line for each measured point, appended and synced; in no certain order
  tune.json     what came of it
  merge.yml     the tuned merge, for `merge` and `mergekit-yaml`
  report.html   all of it on one page
  status.json   the command that goes on, and whether it has ended
  lock          held by the run that works here
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from mergeplan.calibration.going_on import go_on
from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.run_folder import names_in
from mergeplan.errors import SurroundingsError
from mergeplan.evaluation.scores import DocumentLosses, Scores
from mergeplan.system.files import lock, make_folder, sync_folder
from mergeplan.system.folders import what_is
from mergeplan.system.ranges import Magnitude, Number
from mergeplan.system.reading import RUN, SCORES, decode, read_bytes
from mergeplan.system.strict import load_strictly, parse_strictly
from mergeplan.system.writing import (
    add_line,
    open_own,
    remove_unfinished,
    write_durably,
)

IDENTITY, POINTS, RESULT, CONFIG = "tuning.json", "points.jsonl", "tune.json", "merge.yml"
PAGE, STATUS = "report.html", "status.json"
NAMES = (IDENTITY, POINTS, RESULT, CONFIG, PAGE, STATUS)
# Held in the folder while a run works, and what a kill leaves.
_LOCK = "lock"

Rows = tuple[tuple[Number, ...], ...]


def rows(values: NDArray[np.float64]) -> Rows:
    """A matrix as files hold it."""
    return tuple(tuple(map(float, row)) for row in values)


def scores_of(data: Mapping[str, DocumentLosses] | None) -> Scores:
    """Losses as files hold them, again."""
    return Scores.from_data(data or {})


@dataclass(frozen=True)
class Point:
    """A merge that was measured.

    Attributes:
        weights: By expert and group.
        accepting: Losses on the documents that accept steps; `None` of one that was only reported.
        losses: Of each domain on the documents that give gradients, and `slopes` along the weights
            there, by expert and group; empty where none were taken. `along_lambda` is theirs along
            lambda.
        reported: Losses on the reporting half; `None` but for what is reported.
        seconds: That it took.
        tokens: Forward passes through so many; a backward pass counts two.
    """

    weights: Rows
    accepting: dict[str, DocumentLosses] | None = None
    losses: dict[str, Number] | None = None
    slopes: dict[str, Rows] | None = None
    along_lambda: dict[str, Number] | None = None
    reported: dict[str, DocumentLosses] | None = None
    seconds: Magnitude = 0.0
    tokens: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        matrices = [self.weights, *(self.slopes or {}).values()]
        width = len(self.weights[0]) if self.weights else 0
        if not width or any(
            len(one) != len(self.weights) or {*map(len, one)} != {width} for one in matrices
        ):
            raise ValueError("a number for each expert and group")
        if self.slopes is not None and self.slopes.keys() != (self.losses or {}).keys():
            raise ValueError("slopes of each domain that has a loss")


def read_points(path: Path) -> tuple[list[Point], int]:
    """The points of a run, and where they end: the last line of a run that was killed may be torn.

    Raises:
        InputError: A line is damaged.
    """
    content = read_bytes(path, SCORES)
    end = content.rfind(b"\n") + 1
    lines = decode(content[:end], path).splitlines()
    found = [
        parse_strictly(line, Point, f"`{path}`, line {number}")
        for number, line in enumerate(lines, 1)
    ]
    return found, end


def recorded_in(folder: Path) -> RunIdentity | None:
    """Of the run that a folder holds; `None` of one that is empty or not there.

    Raises:
        InputError: The record is damaged.
        SurroundingsError: The folder holds something else.
    """
    found = names_in(folder, NAMES)
    if IDENTITY in found:
        return load_strictly(folder / IDENTITY, RunIdentity, RUN)
    if others := sorted(name for name in found - {_LOCK} if not name.startswith(".")):
        ours = what_is(folder)
        raise SurroundingsError(
            f"`{folder}` is no run of `tune`: "
            + (
                f"it is {ours[0]}"
                if ours
                else f"it has no `{IDENTITY}`, and it holds `{others[0]}`"
            ),
            "choose another folder",
        )
    return None


class TuneFolder:
    """A run's folder, held against other runs.

    Args:
        path: Created where it is absent.
        identity: What is measured.

    Raises:
        InputError: It holds another run, or one of a changed pool.
        SurroundingsError: It is no such run, cannot be written to, or another run works there.
    """

    def __init__(self, path: Path, identity: RunIdentity) -> None:
        self.path = path
        recorded_in(path)  # before the lock, which must not be left among files of others
        make_folder(path)
        with ExitStack() as undo:
            undo.enter_context(lock(path, "tuning"))
            remove_unfinished(path)
            before = recorded_in(path)
            now = identity.with_content() if before is None else go_on(path, before, identity)
            if before is None or before.json() != now.json():
                write_durably(path / IDENTITY, now.json(), replace=before is not None)
                sync_folder(path)
            self.identity = now
            self._file = undo.enter_context(open_own(path / POINTS, create=True))
            self.points, end = read_points(path / POINTS)
            self._file.truncate(end)
            self.close = undo.pop_all().close

    def add(self, point: Point) -> None:
        """Keep a point, durably.

        Raises:
            InputError: A model has changed while it was measured.
            SurroundingsError: The disk refuses it.
        """
        go_on(self.path, self.identity, self.identity.as_found())
        line = json.dumps(asdict(point), allow_nan=False).encode() + b"\n"
        add_line(self._file, self.path / POINTS, line)
        self.points.append(point)

    def write(self, name: str, text: str) -> Path:
        """Write one of the run's files."""
        path = self.path / name
        write_durably(path, text, replace=True)
        return path
