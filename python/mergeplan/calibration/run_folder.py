"""A run's folder: whose it is, and what of it may be replaced.

RUN/
  run.json          what is measured: pool, texts, arithmetic; a folder that has it is a run
  scores.jsonl      a line for each measured merge, appended and synced: the loss of each document
  measurements.csv  the same as a table of means, made anew from scores.jsonl
  law.json, law.png, merge.yml   what the measurements say
  held_back.jsonl   the verdict's merge and its rivals on the other half of the documents
  report.html       all of it on one page, anew after each round
  geometry.json     how the experts lie to each other, where the best subset is sought
  dtype.jsonl       what `--dtype auto` is, and some merges in both dtypes, where they were tried
  status.json       the command that goes on, and at the end the verdict
  written.json      hashes of these nine as they were written: what was edited since stays
  lock              held by the run that works here
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path

from mergeplan.calibration.going_on import go_on
from mergeplan.calibration.identity import RunIdentity
from mergeplan.display.text import format_bytes
from mergeplan.errors import SurroundingsError
from mergeplan.evaluation.measured import RUN, SCORES
from mergeplan.measurements.slopes import GRADIENTS
from mergeplan.selection.geometry import GEOMETRY
from mergeplan.system.files import lock, make_folder, sha256_of, sync_folder
from mergeplan.system.folders import what_is
from mergeplan.system.reading import RECORD
from mergeplan.system.reading import RUN as RUN_KIND
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import refuse_existing, remove_unfinished, saying, write_durably

_WRITTEN = "written.json"
MEASUREMENTS, LAW, PICTURE, CONFIG = "measurements.csv", "law.json", "law.png", "merge.yml"
HELD_BACK, PAGE = "held_back.jsonl", "report.html"
DTYPE_TRIAL, STATUS = "dtype.jsonl", "status.json"


def beside(name: str, number: int = 0) -> str:
    """Where a file goes whose place is taken by an edited one.

    >>> beside("merge.yml"), beside("merge.yml", 2)
    ('merge.new.yml', 'merge.new2.yml')
    """
    stem, dot, ending = name.partition(".")
    return f"{stem}.new{number or ''}{dot}{ending}"


_REPLACED = (
    MEASUREMENTS,
    GRADIENTS,
    LAW,
    PICTURE,
    CONFIG,
    HELD_BACK,
    GEOMETRY,
    PAGE,
    DTYPE_TRIAL,
    STATUS,
)
# All that a run writes. The lock is not among them: nothing is ever written into it.
NAMES = (RUN, SCORES, _WRITTEN, *_REPLACED, *map(beside, _REPLACED))

# What is made of the measurements, and holds none.
_MADE = (LAW, PICTURE, CONFIG, PAGE)

# Reading less is done before one would ask what is going on.
_LARGE_BYTES = 1_000_000_000
# The hashes of each file: of what was there when it was written last, and of what was written.
_Written = dict[str, tuple[str, ...]]


def names_in(folder: Path, ours: Collection[str]) -> set[str]:
    """What lies in a folder; nothing in one that is not there.

    Raises:
        SurroundingsError: It cannot be read, or what has a name of `ours` is no plain file.
    """
    try:
        found = {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise SurroundingsError(f"cannot read `{folder}`: {error.strerror}") from error
    for name in found.intersection(ours):
        refuse_existing(folder / name, overwrite=True)
    return found


def recorded_in(folder: Path) -> RunIdentity | None:
    """What the run measures that a folder holds; `None` of one that a run can begin in.

    Raises:
        InputError: The record is damaged, or of another version.
        SurroundingsError: It is no run, and has files where a run has its own.
    """
    found = names_in(folder, NAMES)
    if RUN in found:
        return load_strictly(folder / RUN, RunIdentity, RUN_KIND)
    if ours := [name for name in NAMES if name in found]:
        if (other := what_is(folder)) is not None:
            raise SurroundingsError(
                f"`{folder}` is no run of `mergeplan calibrate`, but {other[0]}",
                "choose another folder",
            )
        raise SurroundingsError(
            f"`{folder}` is no run, since it has no `{RUN}`, and it holds `{ours[0]}`, which a run"
            " would write",
            "choose another folder, or move the file away",
        )
    return None


def has_measured(folder: Path) -> bool:
    """Whether a run has measured anything yet: until then it may still be of something else."""
    path = folder / SCORES
    return path.is_file() and path.stat().st_size > 0


def files_read(source: Path) -> tuple[Path, ...]:
    """What commands read of a run's folder; or a table, with the run that it lies in."""
    is_run = source.is_dir()
    folder = source if is_run else source.parent
    if not (is_run or (folder / RUN).is_file()):
        return (source,)
    return (source, *(folder / name for name in NAMES if name not in _MADE))[is_run:]


class RunFolder:
    """A run's folder, held against other runs.

    Args:
        path: Created where it is absent.
        identity: What is measured. Until something was, all files of the models are read.
        say: Told so, where that may take a while.

    Attributes:
        identity: The same, with hashes of the files' content.
        notes: On each file that was edited, and stays.

    Raises:
        InputError: It holds another run, or one of a changed pool.
        SurroundingsError: It is no run, and has files where a run has its own; or it cannot be
            written to, or another run works there.
    """

    def __init__(
        self, path: Path, identity: RunIdentity, say: Callable[[str], object] = lambda _: None
    ) -> None:
        self.path = path
        self.notes: dict[str, None] = {}
        self._places: dict[str, Path] = {}
        recorded_in(path)  # before the lock, which must not be left among files of others
        make_folder(path)
        self._lock = lock(path, "calibration")
        try:
            remove_unfinished(path)
            before = recorded_in(path)
            if before is None or not has_measured(path):
                n_bytes = sum(file.stat[0] for file in identity.files())
                if n_bytes >= _LARGE_BYTES:
                    say(f"reading the models once, {format_bytes(n_bytes)}, to know them again")
                self.identity = identity.with_content()
                write_durably(path / RUN, self.identity.json(), replace=before is not None)
                sync_folder(path)  # scores without it would be no run
            else:
                self.identity = before
                self._go_on(identity)
            self._written: _Written = {}
            if (path / _WRITTEN).exists():
                hint = "remove it: files that are there then count as edited"
                self._written = load_strictly(path / _WRITTEN, _Written, RECORD, hint)
        except BaseException:
            self._lock.close()
            raise

    def record(self, name: str, value: str) -> None:
        """Write down in `run.json` what decides what is measured, before anything is."""
        arithmetic = {**self.identity.arithmetic, name: value}
        self.identity = dataclasses.replace(self.identity, arithmetic=arithmetic)
        write_durably(self.path / RUN, self.identity.json(), replace=True)

    def check_models(self) -> None:
        """Refuse to keep what was measured while a model changed.

        Raises:
            InputError: One has changed; the message names it.
        """
        self._go_on(self.identity.as_found())

    def _go_on(self, now: RunIdentity) -> None:
        known = self.identity.json()
        self.identity = go_on(self.path, self.identity, now)
        if self.identity.json() != known:
            write_durably(self.path / RUN, self.identity.json(), replace=True)

    def place(self, name: str, content: bytes | str) -> Path:
        """Write a file of the run; one that was edited stays, and the new one goes beside it.

        Returns:
            Where it is.

        Raises:
            SurroundingsError: It cannot be written.
        """
        data = content.encode() if isinstance(content, str) else content
        number, candidate = 0, name
        while not self._replace(candidate, data):
            number, candidate = number + 1, beside(name, number and number + 1)
        path = self._places[name] = self.path / candidate
        if number:
            note = f"`{self.path / name}` was edited since it was written, and stays"
            self.notes[f"{note}: what belongs to this run is `{path}`"] = None
        return path

    def withdraw(self, name: str) -> None:
        """Remove a file of the run that no longer holds; one that was edited stays.

        Raises:
            SurroundingsError: It cannot be removed.
        """
        path = self.path / name
        refuse_existing(path, overwrite=True)
        if path.exists() and self.is_own(name):
            with saying(path):
                path.unlink()

    def is_own(self, name: str) -> bool:
        """Whether a file that is there is as the run wrote it."""
        return sha256_of(self.path / name) in self._written.get(name, ())

    def at(self, name: str) -> Path:
        """Where a file is that was written last by that name."""
        return self._places.get(name, self.path / name)

    def _replace(self, name: str, data: bytes) -> bool:
        """Write a file unless somebody else's is there; returns whether it was."""
        path = self.path / name
        refuse_existing(path, overwrite=True)
        new = hashlib.sha256(data).hexdigest()
        old = sha256_of(path) if path.exists() else None
        known = self._written.get(name, ())
        if old not in (None, new, *known):
            return False
        # Both, since a kill may come before the file is there.
        self._written[name] = tuple(dict.fromkeys(one for one in (old, new) if one))
        if self._written[name] != known:
            record = json.dumps(self._written, indent=1, sort_keys=True)
            write_durably(self.path / _WRITTEN, record, replace=True)
        if old != new:
            write_durably(path, data, replace=old is not None)
        return True

    def close(self) -> None:
        """Let other runs in."""
        self._lock.close()
