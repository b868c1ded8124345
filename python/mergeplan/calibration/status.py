"""How a run stands: what it has measured, whether it is at work, and the command that goes on."""

import json
import shlex
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from mergeplan.calibration.run_folder import CONFIG, STATUS, RunFolder, recorded_in
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted
from mergeplan.errors import MissingInputError, UnreachableError
from mergeplan.evaluation.measured import SCORES, read_scores
from mergeplan.system.files import LOCK, expanded, is_held
from mergeplan.system.folders import what_is
from mergeplan.system.reading import STATUS as STATUS_KIND
from mergeplan.system.strict import load_strictly
from mergeplan.verdict.verdict import Verdict

State = Literal["at work", "stopped", "finished"]


@dataclass(frozen=True)
class RecordedVerdict:
    """What a run's verdict said when it ended.

    Attributes:
        answer: Its kind.
        text: Its whole summary; `headline` is the first line.
        config: The name of the YAML that it wrote; empty where it wrote none.
        measure: The command that measures more, where the verdict asks for that.
    """

    answer: str
    headline: str
    text: str
    exit_code: int
    config: str = ""
    measure: str = ""


@dataclass(frozen=True)
class RunRecord:
    """`status.json`: what the run's folder does not tell otherwise.

    Attributes:
        command: That began it, or went on with it last; empty where none did.
        folder: Where that was given.
        verdict: `None` until it ends.
    """

    command: str
    folder: str
    verdict: RecordedVerdict | None = None


@dataclass(frozen=True, repr=False)
class RunStatus(Summarized):
    """How a run stands.

    Attributes:
        state: `finished` with its verdict; else `at work` or `stopped`.
        merges: That are measured; `by_method` says how many by which, the base as `base`.
        n_scored: Tokens that they were scored on, or documents or items, as `unit` says.
        seconds: That merging and scoring them took.
        last: When the last one was measured, in UTC; `None` before the first.
        verdict: As the run recorded it when it ended.
        next_command: What goes on, from the folder that `given_in` names; empty where that was not
            recorded, or a run is at work.
    """

    run: Path
    state: State
    merges: int
    by_method: dict[str, int]
    n_scored: int
    unit: str
    seconds: float
    last: datetime | None
    verdict: RecordedVerdict | None
    next_command: str
    given_in: str

    def summary(self) -> str:
        """The state, what is measured, the verdict, and the command that goes on."""
        lines = [f"{self.run}: {self.state}"]
        lines.append(
            f"measured: {counted(self.merges, 'merges')}, {self.n_scored:,} {self.unit},"
            f" {self.seconds:,.0f} s of merging and scoring"
        )
        if self.last is not None:
            by = ", ".join(f"{name} {n:,}" for name, n in self.by_method.items())
            lines += [f"  {by}", f"  the last one at {self.last:%Y-%m-%d %H:%M:%S} UTC"]
        lines.append(self.verdict.text if self.verdict else self._no_verdict())
        if self.next_command:
            lines.append(f"next: {self.next_command}")
            if Path(self.given_in) != Path.cwd():
                lines.append(f"  in the folder {self.given_in}")
        return "\n".join(lines)

    def _no_verdict(self) -> str:
        if self.state == "at work":
            return "no verdict yet: it comes when the run ends"
        again = "" if self.next_command else "; `mergeplan calibrate` with the same options goes on"
        return f"no verdict yet: the run was stopped before its end{again}"

    def records(self) -> list[dict[str, Any]]:
        """A row for each method."""
        return [{"method": name, "merges": n} for name, n in self.by_method.items()]


def status(run: str | Path) -> RunStatus:
    """How a run of `calibrate` stands, also while it is at work; nothing is written.

    Args:
        run: Its folder.

    Returns:
        What is measured, the verdict if there is one, and the command that goes on.

    Raises:
        MissingInputError: There is no run.
        InputError: A file of it is damaged.
        SurroundingsError: The folder cannot be read.
    """
    folder = expanded(run)
    # Before what is read: a run that ends meanwhile is then called finished by its verdict.
    held = is_held(folder / LOCK)
    identity = recorded_in(folder)
    if identity is None:
        what, hint = what_is(folder) or ("", "name the folder that `-o` named")
        but = f", but {what}" if what else ""
        raise MissingInputError(f"`{folder}` is no run of `mergeplan calibrate`{but}", hint)
    path = folder / STATUS
    record = load_strictly(path, RunRecord, STATUS_KIND) if path.is_file() else None
    measured = read_scores(folder)
    verdict = record.verdict if record else None
    state: State = "finished" if verdict else "at work" if held else "stopped"
    counts: dict[str, int] = {}
    for one in measured:
        counts[one.merge.method] = counts.get(one.merge.method, 0) + 1
    unit = "tokens"
    if identity.metric:
        unit = "documents" if "`--scorer`" in identity.arithmetic else "items"
    return RunStatus(
        run=folder,
        state=state,
        merges=len(measured),
        by_method=dict(sorted(counts.items())),
        n_scored=sum(one.scores.n_tokens for one in measured),
        unit=unit,
        seconds=sum(sum(one.seconds) for one in measured),
        last=when_changed(folder / SCORES) if measured else None,
        verdict=verdict,
        next_command="" if record is None or state == "at work" else _next(folder, record),
        given_in=record.folder if record else "",
    )


def when_changed(path: Path) -> datetime:
    """When a line was added last, to the second."""
    return datetime.fromtimestamp(int(path.stat().st_mtime), timezone.utc)


def _next(folder: Path, record: RunRecord) -> str:
    verdict = record.verdict
    if verdict is None:
        return record.command
    if verdict.measure:
        return verdict.measure
    if verdict.config:
        return shlex.join(["mergeplan", "merge", str(folder / verdict.config), "OUT_DIR"])
    return shlex.join(["mergeplan", "report", str(folder), "-o", "report.html"])


def record_status(run: RunFolder, command: str, verdict: Verdict | None = None) -> None:
    """Write `status.json`: how a run goes on, and with what it ended.

    Args:
        command: That goes on; empty where none does.
        verdict: `None` while it is at work.

    Raises:
        SurroundingsError: It cannot be written.
    """
    found = RunRecord(command, str(Path.cwd()))
    if verdict is not None:
        config = run.at(CONFIG)
        more = verdict.to_measure if verdict.kind == "measure" else None
        recorded = RecordedVerdict(
            answer=verdict.kind,
            headline=verdict.headline(),
            text=verdict.summary(),
            exit_code=UnreachableError.exit_code if verdict.fails else 0,
            config=config.name if verdict.merge is not None and config.is_file() else "",
            measure="" if more is None else more.command,
        )
        found = RunRecord(command, str(Path.cwd()), recorded)
    run.place(STATUS, json.dumps(asdict(found), indent=1) + "\n")
