"""`tune.json`, read again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Predicate
from numpy.typing import NDArray

from mergeplan.display.text import counted
from mergeplan.errors import MissingInputError
from mergeplan.system.ranges import Magnitude, Number, version_is
from mergeplan.system.reading import RECORD
from mergeplan.system.strict import load_strictly
from mergeplan.tuning.folder import IDENTITY, POINTS, RESULT, Rows, read_points
from mergeplan.tuning.result import VERSION
from mergeplan.tuning.steps import Step


@dataclass(frozen=True)
class RivalRecord:
    """See `result.Rival`; `None` where there are too few documents."""

    name: str
    value: Number | None
    gain: Number | None
    low: Number | None
    high: Number | None
    domains: dict[str, tuple[Number | None, Number | None, Number | None]]


@dataclass(frozen=True)
class LeftOutRecord:
    """See `leaving_out.LeftOut`."""

    what: Literal["expert", "group"]
    name: str
    cost: Number
    free: bool
    se: Number | None


@dataclass(frozen=True)
class PartRecord:
    """Of a group its layer and its kind; see `groups.Groups`."""

    layer: str
    kind: str


@dataclass(frozen=True)
class TuneRecord:
    """What came of a tuning; see `result.Tuned`."""

    version: Annotated[int, Predicate(version_is(VERSION, f"version {VERSION}"))]
    aim: str
    by: str
    method: str
    experts: tuple[str, ...]
    groups: tuple[str, ...]
    weights: Rows
    bounds: tuple[Number, Number]
    at_bound: tuple[str, ...]
    penalty: Magnitude
    stopped: str
    points: Annotated[int, Ge(0)]
    passes: Magnitude
    pass_tokens: Annotated[int, Ge(1)]
    seconds: Magnitude
    value: Number
    domains: dict[str, Number]
    shares: dict[str, Number]
    parts: tuple[PartRecord, ...]
    steps: tuple[Step, ...]
    promised: Number
    rivals: tuple[RivalRecord, ...]
    left_out: tuple[LeftOutRecord, ...]
    effects: dict[str, Rows]
    config: str
    next: str
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = len(self.experts), len(self.groups)
        if any(np.shape(one) != shape for one in (self.weights, *self.effects.values())):
            raise ValueError("a number for each expert and group")
        if len(self.parts) != shape[1] or not self.effects.keys() == self.domains.keys():
            raise ValueError("a part for each group, and an effect on each domain")
        if not self.shares.keys() <= self.domains.keys():
            raise ValueError("shares of domains that are there")

    def array(self, values: Rows) -> NDArray[np.float64]:
        """Shape (n_experts, n_groups)."""
        return np.array(values, np.float64).reshape(len(self.experts), len(self.groups))


def read_result(folder: Path) -> TuneRecord:
    """What came of the tuning in a folder.

    Raises:
        MissingInputError: It is no tuning, or has not ended.
        InputError: Its record is damaged.
    """
    path = folder / RESULT
    if path.is_file():
        hint = "give the same `mergeplan tune` again: it measures nothing anew, and writes it"
        return load_strictly(path, TuneRecord, RECORD, hint)
    if not (folder / IDENTITY).is_file():
        raise MissingInputError(
            f"`{folder}` is no run of `mergeplan tune`", "name the folder that `-o` named"
        )
    points = folder / POINTS
    n = len(read_points(points)[0]) if points.is_file() else 0
    raise MissingInputError(
        f"the tuning in `{folder}` is not finished: {counted(n, 'points')} are measured, and it has"
        f" no `{RESULT}` yet",
        "wait for `mergeplan tune`, or give it the same command again: it goes on",
    )
