"""A run's folder: every finished measurement is on disk before the next one begins.

RUN/
  run.json          what is measured: pool, texts, arithmetic
  scores.jsonl      a line for each measured merge, appended and synced: the loss of each document
  measurements.csv  the same as a table of means, made anew from scores.jsonl
  lock              held by the run that works here
"""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from mergeplan.calibration.identity import RunIdentity, refuse_changes, short_hash
from mergeplan.errors import InputError
from mergeplan.evaluation.scores import DocumentLosses, Scores
from mergeplan.measurements.columns import COLUMNS, LARGEST_LOSS, SMALLEST_LOSS, write_se
from mergeplan.measurements.file import table_text
from mergeplan.measurements.rows import MACRO, Measurement, Measurements, domain_name
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.files import lock, make_folder, write_durably
from mergeplan.system.ranges import Magnitude
from mergeplan.system.reading import RUN as RUN_FILE
from mergeplan.system.reading import SCORES, decode, read_bytes
from mergeplan.system.strict import load_strictly, parse_strictly

MEASUREMENTS = "measurements.csv"
RUN, _SCORES = "run.json", "scores.jsonl"
# A calibration measures losses of equally weighted merges.
_COLUMNS = [c for c in COLUMNS if c.about != "metric" and c.name != "weights"]


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


class RunStore:
    """The measurements of a run; one process at a time.

    Args:
        folder: Created where it is absent.
        identity: What is measured.
        pool_sizes: Experts of each size.

    Raises:
        InputError: The folder holds another run, or one of a changed pool.
        SurroundingsError: It cannot be written to, or another run works there.
    """

    def __init__(self, folder: Path, identity: RunIdentity, pool_sizes: tuple[int, ...]) -> None:
        self.folder = folder
        self._pool_sizes = pool_sizes
        self._pool_hash = short_hash(identity.models)
        self._data_hashes = list(identity.texts.values())
        make_folder(folder)
        self._lock = lock(folder, "calibration")
        self._path = folder / _SCORES
        try:
            self._begin(identity)
            self._found = self._read()
            self._file: IO[bytes] = self._path.open("ab")
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, identity: RunIdentity) -> None:
        path = self.folder / RUN
        if path.exists():
            refuse_changes(self.folder, load_strictly(path, RunIdentity, RUN_FILE), identity)
        elif (self.folder / _SCORES).exists():
            raise InputError(f"`{self.folder}` holds scores and no `{RUN}`: it is no whole run")
        else:
            write_durably(path, identity.json())

    def _read(self) -> dict[str, MeasuredMerge]:
        """What is there; the torn last line of a run that was killed is cut off."""
        if not self._path.exists():
            return {}
        content = read_bytes(self._path, SCORES)
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        found = {}
        for number, line in enumerate(decode(whole, self._path).splitlines(), 1):
            data = parse_strictly(line, ScoresLine, f"`{self._path}`, line {number}")
            measured = MeasuredMerge(data.merge, Scores.from_data(data.scores), data.seconds)
            found[measured.merge.key] = measured
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
        line = ScoresLine(measured.merge, measured.seconds, measured.scores.to_data())
        self._file.write(json.dumps(asdict(line)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._found[measured.merge.key] = measured

    def write_table(self) -> Path:
        """`measurements.csv`, whole at any moment; merges whose loss is not finite are left out."""
        path = self.folder / MEASUREMENTS
        write_durably(path, table_text(self.rows(), _COLUMNS))
        return path

    def rows(self) -> list[Measurement]:
        """The table's rows, in canonical order."""
        return [row for measured in self.all() for row in self._rows_of(measured)]

    def measurements(self, some: Iterable[MeasuredMerge]) -> Measurements:
        """The rows of some measurements, as reading the table would give them.

        Raises:
            InputError: A loss is none of a language model.
        """
        ordered = sorted(some, key=lambda measured: measured.merge.order)
        rows = tuple(row for measured in ordered for row in self._rows_of(measured))
        for row in rows:
            if not SMALLEST_LOSS <= row.loss_nats <= LARGEST_LOSS:
                what = "+".join(row.subset) or "the base"
                raise InputError(
                    f"`{row.method}` of {what}, domain `{row.domain}`: expected a loss in nats,"
                    f" found {row.loss_nats:g}"
                )
        return Measurements(rows, "")

    def _rows_of(self, measured: MeasuredMerge) -> list[Measurement]:
        """A row for each domain and one for their mean, in the digits of the table; none where a
        loss is not finite."""
        merge, scores = measured.merge, measured.scores
        means = {domain_name(name): mean for name, mean in scores.estimates().items()}
        means[MACRO] = scores.macro()
        if not all(math.isfinite(mean.loss_nats) for mean in means.values()):
            return []
        return [
            Measurement(
                row=0,
                k=merge.k,
                loss_nats=round(mean.loss_nats, 8),
                method=merge.method,
                options=merge.options,
                n_params=merge.n_params,
                domain=domain,
                subset=merge.subset,
                pool_size=self._pool_sizes[merge.size],
                loss_se=float(se) if (se := write_se(mean.se)) else None,
                seed=str(merge.seed),
                n_tokens=mean.n_tokens,
                pool_hash=self._pool_hash,
                data_hash=self._data_hashes[merge.size],
            )
            for domain, mean in means.items()
        ]

    def close(self) -> None:
        self._file.close()
        self._lock.close()
