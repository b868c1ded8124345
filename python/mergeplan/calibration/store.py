"""A run's folder: every finished measurement is on disk before the next one begins.

RUN/
  run.json          what is measured: pool, texts, arithmetic
  scores.jsonl      a line for each measured merge, appended and synced: the loss of each document
  measurements.csv  the same as a table of means, made anew from scores.jsonl
  lock              held by the run that works here
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mergeplan.calibration.identity import refuse_changes, short_hash
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.evaluation.scores import Scores
from mergeplan.measurements import MACRO, Measurements, parse_measurements
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.files import lock, write_durably

VERSION = 1
MEASUREMENTS = "measurements.csv"
RUN, _SCORES = "run.json", "scores.jsonl"
COLUMNS = (
    "n_params",
    "method",
    "options",
    "k",
    "subset",
    "pool_size",
    "domain",
    "loss_nats",
    "loss_se",
    "n_tokens",
    "seed",
    "pool_hash",
    "data_hash",
)


@dataclass(frozen=True)
class MeasuredMerge:
    """A merge and its losses.

    Attributes:
        seconds: Time that merging and evaluating took.
    """

    merge: SubsetMerge
    scores: Scores
    seconds: tuple[float, float]


class RunStore:
    """The measurements of a run; one process at a time.

    Args:
        folder: Created where it is absent.
        identity: Sections of what is measured; see `identity.refuse_changes`.
        pool_sizes: Experts of each size.

    Raises:
        InputError: The folder holds another run, or one of a changed pool.
        SurroundingsError: It cannot be written to, or another run works there.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], pool_sizes: tuple[int, ...]
    ) -> None:
        self.folder = folder
        self._pool_sizes = pool_sizes
        self._pool_hash = short_hash(identity["models"])
        self._data_hashes = list(identity["texts"].values())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SurroundingsError(f"cannot create `{folder}`: {error.strerror}") from error
        self._lock = lock(folder, "calibration")
        self._path = folder / _SCORES
        try:
            self._begin(identity)
            self._found = self._read()
            self._file: IO[bytes] = self._path.open("ab")
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, identity: Mapping[str, Any]) -> None:
        path = self.folder / RUN
        # As JSON gives it back.
        now = json.loads(json.dumps({"version": VERSION, **identity}))
        if not path.exists():
            if (self.folder / _SCORES).exists():
                raise InputError(f"`{self.folder}` holds scores and no `{RUN}`: it is no whole run")
            write_durably(path, json.dumps(now, indent=1, sort_keys=True))
            return
        try:
            before = json.loads(path.read_text("utf-8"))
            version = before.pop("version")
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"`{path}` is no run of mergeplan: {error}") from error
        if version != now.pop("version"):
            raise InputError(f"`{path}`: expected version {VERSION}, found {version}")
        refuse_changes(self.folder, before, now)

    def _read(self) -> dict[str, MeasuredMerge]:
        """What is there; the torn last line of a run that was killed is cut off."""
        if not self._path.exists():
            return {}
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        found = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                data = json.loads(line)
                merge = SubsetMerge(**{**data["merge"], "subset": tuple(data["merge"]["subset"])})
                measured = MeasuredMerge(
                    merge, Scores.from_data(data["scores"]), tuple(data["seconds"])
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"`{self._path}`, line {number} is damaged: {error}") from error
            found[merge.key] = measured
        return found

    def get(self, merge: SubsetMerge) -> MeasuredMerge | None:
        return self._found.get(merge.key)

    def all(self) -> list[MeasuredMerge]:
        """In canonical order, whatever the order of measuring was."""
        return sorted(self._found.values(), key=lambda measured: measured.merge.order)

    def add(self, measured: MeasuredMerge) -> None:
        """Keep a measurement, durably.

        Raises:
            OSError: The disk refuses it.
        """
        merge = measured.merge
        data = {
            "merge": {
                "size": merge.size,
                "n_params": merge.n_params,
                "method": merge.method,
                "options": merge.options,
                "subset": merge.subset,
                "seed": merge.seed,
            },
            "seconds": measured.seconds,
            "scores": measured.scores.to_data(),
        }
        self._file.write(json.dumps(data).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._found[merge.key] = measured

    def write_table(self) -> Path:
        """`measurements.csv`, whole at any moment; merges whose loss is not finite are left out."""
        path = self.folder / MEASUREMENTS
        write_durably(path, table_of(self.rows()))
        return path

    def rows(self) -> list[dict[str, Any]]:
        """The table's rows, in canonical order."""
        return [row for measured in self.all() for row in self._rows_of(measured)]

    def measurements(self, some: Iterable[MeasuredMerge]) -> Measurements:
        """The rows of some measurements, as reading the table would give them."""
        ordered = sorted(some, key=lambda measured: measured.merge.order)
        rows = [row for measured in ordered for row in self._rows_of(measured)]
        return parse_measurements(table_of(rows), MEASUREMENTS)

    def _rows_of(self, measured: MeasuredMerge) -> list[dict[str, Any]]:
        merge, scores = measured.merge, measured.scores
        common = {
            "n_params": f"{merge.n_params:.0f}",
            "method": merge.method,
            "options": merge.options,
            "k": merge.k,
            "subset": "+".join(merge.subset),
            "pool_size": self._pool_sizes[merge.size],
            "seed": merge.seed,
            "pool_hash": self._pool_hash,
            "data_hash": self._data_hashes[merge.size],
        }
        rows = []
        for domain, estimate in {**scores.estimates(), MACRO: scores.macro()}.items():
            if not math.isfinite(estimate.loss_nats):
                return []
            se = f"{estimate.se:.6g}" if math.isfinite(estimate.se) else ""
            loss = {"loss_nats": f"{estimate.loss_nats:.8f}", "loss_se": se}
            rows.append({**common, "domain": domain, **loss, "n_tokens": estimate.n_tokens})
        return rows

    def close(self) -> None:
        self._file.close()
        self._lock.close()


def table_of(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
