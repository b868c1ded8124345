"""How a tuning stands, also while it is at work: `status.json`, and what the folder tells."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mergeplan.calibration.status import State, when_changed
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted
from mergeplan.errors import MissingInputError
from mergeplan.system.files import LOCK, expanded, is_held
from mergeplan.system.reading import STATUS as STATUS_KIND
from mergeplan.system.strict import load_strictly
from mergeplan.tuning.folder import (
    IDENTITY,
    POINTS,
    RESULT,
    STATUS,
    TuneFolder,
    read_points,
    recorded_in,
)
from mergeplan.tuning.record import TuneRecord, read_result


@dataclass(frozen=True)
class TuneCommand:
    """`status.json`.

    Attributes:
        command: That began the run, or went on with it last; empty where none did.
        folder: Where that was given.
        ended: Whether it came to its end.
    """

    command: str
    folder: str
    ended: bool = False


@dataclass(frozen=True, repr=False)
class TuneStatus(Summarized):
    """How a tuning stands.

    Attributes:
        points: That are measured; `with_slopes` are those whose slopes are known.
        tokens: Forward passes through so many; a backward pass counts two.
        seconds: That they took.
        last: When the last one was measured, in UTC; `None` before the first.
        aim: What it was tuned for; `value`, of the tuned merge, and `gains` over others, by name,
            on the reporting half: empty until it has ended.
        next_command: As of `calibration.status.RunStatus`.
    """

    run: Path
    state: State
    points: int
    with_slopes: int
    tokens: int
    seconds: float
    last: datetime | None
    aim: str
    value: float | None
    gains: dict[str, float | None]
    next_command: str
    given_in: str

    def summary(self) -> str:
        """The state, what is measured, what it gained, and the command that goes on."""
        lines = [
            f"{self.run}: {self.state}",
            f"measured: {counted(self.points, 'points')}, {self.with_slopes} of them with slopes,"
            f" {self.tokens:,} tokens of forward passes, {self.seconds:,.0f} s",
        ]
        if self.last is not None:
            lines.append(f"  the last one at {self.last:%Y-%m-%d %H:%M:%S} UTC")
        if self.value is None:
            again = (
                ""
                if self.next_command or self.state == "at work"
                else ("; `mergeplan tune` with the same options goes on")
            )
            lines.append(f"no weights yet: they come when the run ends{again}")
        else:
            lines.append(f"tuned for {self.aim}: {self.value:.4f} on the reporting half")
            for name, gain in self.gains.items():
                if gain is not None:
                    verb = "better" if gain >= 0 else "worse"
                    lines.append(f"  {abs(gain):.4f} {verb} than {name}")
        if self.next_command:
            lines.append(f"next: {self.next_command}")
            if Path(self.given_in) != Path.cwd():
                lines.append(f"  in the folder {self.given_in}")
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for each merge that the tuned one is held against."""
        return [{"name": name, "gain": gain} for name, gain in self.gains.items()]


def is_tuning(path: Path) -> bool:
    """Whether a folder is one that `tune` works in."""
    return (path / IDENTITY).is_file()


def tune_status(run: str | Path) -> TuneStatus:
    """How a run of `tune` stands, also while it is at work; nothing is written.

    Args:
        run: Its folder.

    Returns:
        What is measured, what it came to if it has ended, and the command that goes on.

    Raises:
        MissingInputError: There is no such run.
        InputError: A file of it is damaged.
        SurroundingsError: The folder cannot be read.
    """
    folder = expanded(run)
    held = is_held(folder / LOCK)
    if recorded_in(folder) is None:
        raise MissingInputError(
            f"`{folder}` is no run of `mergeplan tune`", "name the folder that `-o` named"
        )
    record = (
        load_strictly(folder / STATUS, TuneCommand, STATUS_KIND)
        if ((folder / STATUS).is_file())
        else TuneCommand("", "")
    )
    points = read_points(folder / POINTS)[0] if (folder / POINTS).is_file() else []
    # The result of an earlier run stays until the next one has ended.
    ended = record.ended and (folder / RESULT).is_file()
    found: TuneRecord | None = read_result(folder) if ended else None
    state: State = "at work" if held else "finished" if found else "stopped"
    going_on = record.command if found is None else found.next
    return TuneStatus(
        run=folder,
        state=state,
        points=len(points),
        with_slopes=sum(bool(one.slopes) for one in points),
        tokens=sum(one.tokens for one in points),
        seconds=sum(one.seconds for one in points),
        last=when_changed(folder / POINTS) if points else None,
        aim="" if found is None else found.aim,
        value=None if found is None else found.value,
        gains={} if found is None else {one.name: one.gain for one in found.rivals},
        next_command="" if state == "at work" else going_on,
        given_in=record.folder,
    )


def record_command(run: TuneFolder, command: str, *, ended: bool) -> None:
    """Write `status.json`.

    Raises:
        SurroundingsError: It cannot be written.
    """
    found = TuneCommand(command, str(Path.cwd()), ended)
    run.write(STATUS, json.dumps(asdict(found), indent=1) + "\n")
