"""The measurements of a run: every one is on disk before the next one begins."""

import json
import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.run_folder import MEASUREMENTS, RunFolder
from mergeplan.errors import InputError
from mergeplan.evaluation.measured import SCORES, MeasuredMerge, parse_lines, scores_line
from mergeplan.evaluation.partial import Completed, completed
from mergeplan.evaluation.parts import N_PARTS
from mergeplan.evaluation.scores import Estimate, TaskScore
from mergeplan.measurements.columns import COLUMNS, LARGEST_LOSS, SMALLEST_LOSS, write_se
from mergeplan.measurements.file import table_text
from mergeplan.measurements.rows import MACRO, PARTLY, Measurement, Measurements, domain_name
from mergeplan.measurements.slopes import GRADIENTS, Slope, slopes_text
from mergeplan.pool.geometry.compare import similarity
from mergeplan.pool.geometry.file import Gram, geometry_data, grams_of
from mergeplan.pool.pool import Pool
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.geometry import GEOMETRY, grams_of_pool, is_geometry
from mergeplan.selection.slopes import slopes_for
from mergeplan.system.reading import SCORES as SCORES_KIND
from mergeplan.system.reading import read_bytes
from mergeplan.system.writing import add_line, open_own, saying

# A calibration measures equally weighted merges.
_COLUMNS = [column for column in COLUMNS if column.name != "weights"]


class RunStore:
    """The measurements of a run; one process at a time.

    Args:
        folder: Created where it is absent.
        identity: What is measured.
        pool_sizes: Experts of each size.
        say: Told what takes a while.

    Attributes:
        grams: How the experts lie to each other, where that is known; see `compare_experts`.
        metric: What decides; empty for losses in nats.

    Raises:
        InputError: The folder holds another run, or one of a changed pool.
        SurroundingsError: It cannot be written to, or another run works there.
    """

    def __init__(
        self,
        folder: Path,
        identity: RunIdentity,
        pool_sizes: tuple[int, ...],
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._pool_sizes = pool_sizes
        self.grams: tuple[Gram, ...] = ()
        self._data_hashes = list(identity.texts.values())
        self._task_hashes = identity.task_hashes()
        self.metric = identity.metric
        self.folder = RunFolder(folder, identity, say)
        self._pool_hash = self.folder.identity.pool_hash()
        path = folder / SCORES
        with ExitStack() as undo:
            undo.callback(self.folder.close)
            self._file = undo.enter_context(open_own(path, create=True))
            content = read_bytes(path, SCORES_KIND)
            lines, end = parse_lines(content, path)
            self._found = {one.merge.key: one for one in lines}
            self._reached = {(one.merge.key, one.parts): one for one in lines}
            if end < len(content):
                self._file.truncate(end)
            self._close = undo.pop_all().close

    def get(self, merge: SubsetMerge) -> MeasuredMerge | None:
        """With all documents that it was scored on."""
        return self._found.get(merge.key)

    def at(self, merge: SubsetMerge, parts: int | None) -> MeasuredMerge | None:
        """As it was when it had been scored on so many parts of the text, or else on more."""
        kept = self._reached.get((merge.key, parts)) or self.get(merge)
        fewer = kept is None or (kept.parts or N_PARTS) < (parts or N_PARTS)
        return None if fewer else kept

    def all(self) -> list[MeasuredMerge]:
        """In canonical order, whatever the order of measuring was."""
        return sorted(self._found.values(), key=lambda measured: measured.merge.order)

    def add(self, measured: MeasuredMerge) -> None:
        """Keep a measurement, durably, with what the merge was scored on before.

        Raises:
            InputError: A model has changed while it was made.
            SurroundingsError: The disk refuses it.
        """
        self.folder.check_models()
        if (before := self.get(measured.merge)) is not None:
            scores = before.scores.and_more(measured.scores)
            merging, evaluating = zip(before.seconds, measured.seconds, strict=True)
            measured = replace(measured, scores=scores, seconds=(sum(merging), sum(evaluating)))
        add_line(self._file, self.folder.path / SCORES, scores_line(measured))
        self._found[measured.merge.key] = measured
        self._reached[measured.merge.key, measured.parts] = measured

    def compare_experts(
        self, pool: Pool, say: Callable[[str], object], *, threads: int | None, anew: bool
    ) -> None:
        """How the experts lie to each other, which makes few merges tell more of the others.

        Args:
            anew: Whether to read them where the run has not compared them yet.

        Raises:
            InputError: A file that the run did not write is of another pool.
        """
        if (self.folder.path / GEOMETRY).is_file():
            self.grams = self._kept_grams(say)
        if not self.grams and anew:
            say("comparing the experts by their weights")
            try:
                found = similarity(pool, threads=threads)
            except InputError as error:
                say(f"without that: {error}")
                return
            self.grams = grams_of(found)
            data = geometry_data(found, self._pool_hash)
            self.folder.place(GEOMETRY, json.dumps(data, allow_nan=False) + "\n")

    def _kept_grams(self, say: Callable[[str], object]) -> tuple[Gram, ...]:
        """What the run has of it; where that is damaged, or of the pool as it was, it is removed.

        Raises:
            InputError: A file that the run did not write is of another pool.
        """
        path = self.folder.path / GEOMETRY
        try:
            return grams_of_pool(path, {self._pool_hash})
        except InputError as error:
            if not self.folder.is_own(GEOMETRY) and is_geometry(path):
                raise
            say(f"{error.message}: it is removed")
        with saying(path):
            path.unlink()
        return ()

    def write_table(self) -> Path:
        """`measurements.csv`, whole at any moment; merges whose loss is not finite are left out."""
        rows = self.rows()
        about = {"merge", "text", "loss", *(row.metric and "metric" for row in rows)}
        partly = any(row.text_se is not None for row in rows)
        columns = [one for one in _COLUMNS if one.about in about]
        columns = [one for one in columns if partly or one.name != "text_se"]
        self.write_slopes()
        return self.folder.place(MEASUREMENTS, table_text(rows, columns))

    def write_slopes(self) -> None:
        """`gradients.csv` beside it, where merges were measured with slopes."""
        if rows := self.slopes(self.all()):
            self.folder.place(GRADIENTS, slopes_text(rows))

    def slopes(self, some: Iterable[MeasuredMerge]) -> list[Slope]:
        """The rows of some measurements, of those that were made with slopes."""
        return [
            Slope(
                one.merge.merge_key,
                domain_name(domain),
                expert,
                slope,
                self._pool_hash,
                self._data_hashes[one.merge.size],
            )
            for one in some
            if one.slopes is not None
            for domain, slopes in one.slopes.domains.items()
            for expert, slope in zip(one.slopes.experts, slopes, strict=True)
        ]

    def rows(self) -> list[Measurement]:
        """The table's rows, in canonical order."""
        return [
            row
            for one in completed(self.all())
            for row in (*self._rows_of(one), *self._task_rows_of(one.measured))
        ]

    def measurements(self, some: Iterable[MeasuredMerge]) -> Measurements:
        """The rows of some measurements, as reading the table would give them.

        Raises:
            InputError: A loss is none of a language model, or a value is out of all range.
        """
        least = -LARGEST_LOSS if self.metric else SMALLEST_LOSS
        ordered = sorted(some, key=lambda measured: measured.merge.order)
        rows = tuple(row for one in completed(ordered) for row in self._rows_of(one))
        for row in rows:
            if not least <= row.loss_nats <= LARGEST_LOSS:
                what = "+".join(row.subset) or "the base"
                raise InputError(
                    f"`{row.method}` of {what}, domain `{row.domain}`: expected"
                    f" {self.metric or 'a loss in nats'} from {least:g} to {LARGEST_LOSS:g}, found"
                    f" {row.loss_nats:g}"
                )
        return Measurements(rows, "")

    def _rows_of(self, one: Completed) -> list[Measurement]:
        """A row for each domain and one for their mean, in the digits of the table; none where a
        loss is not finite."""
        merge, scores = one.measured.merge, one.measured.scores
        means = {domain_name(name): mean for name, mean in scores.estimates().items()}
        means[MACRO] = scores.macro()
        if not all(math.isfinite(mean.loss_nats) for mean in means.values()):
            return []
        return [
            replace(
                self._row_of(merge),
                loss_nats=round(mean.loss_nats, 8),
                domain=domain,
                slopes=_slopes_of(one.measured, domain),
                **self._error_of(mean) | partly_scored(one, domain, self._data_hashes[merge.size]),
            )
            for domain, mean in means.items()
        ]

    def _error_of(self, mean: Estimate) -> dict[str, Any]:
        """What a row says of a mean beside its value."""
        se = _se(mean.se)
        if not self.metric:
            return {"loss_se": se, "n_tokens": mean.n_tokens}
        about = {"metric": self.metric, "higher": self.folder.identity.higher}
        return {**about, "value_se": se, "n_items": mean.n_tokens}

    def _task_rows_of(self, measured: MeasuredMerge) -> list[Measurement]:
        """A row for each metric of each task that says which way is better."""
        return [
            replace(
                self._row_of(measured.merge),
                loss_nats=round(score.value, 8),
                domain=score.task,
                metric=score.metric,
                higher=score.better == "higher",
                value_se=_se(score.se),
                # Without an error it would be taken for a share of the items.
                n_items=None if _se(score.se) is None else score.n_documents or None,
                data_hash=self._task_hashes.get(score.task, ""),
            )
            for score in measured.tasks
            # The table is read again, where nothing larger may stand.
            if score.better
            and abs(score.value) <= LARGEST_LOSS
            and not self._decides(score, measured)
        ]

    def _decides(self, score: TaskScore, measured: MeasuredMerge) -> bool:
        """Whether it stands in the table already, as what decides."""
        return score.metric == self.metric and score.task in measured.scores.domains

    def _row_of(self, merge: SubsetMerge) -> Measurement:
        """What every row of a merge says; its value is to come."""
        return Measurement(
            row=0,
            k=merge.k,
            loss_nats=math.nan,
            method=merge.method,
            options=merge.options,
            n_params=merge.n_params,
            subset=merge.subset,
            pool_size=self._pool_sizes[merge.size],
            seed=str(merge.seed),
            pool_hash=self._pool_hash,
        )

    def close(self) -> None:
        self._close()


def _se(se: float) -> float | None:
    """In the digits of the table."""
    return float(text) if se <= LARGEST_LOSS and (text := write_se(se)) else None


def _slopes_of(measured: MeasuredMerge, domain: str) -> tuple[tuple[str, float], ...]:
    """What a row of a domain, or of their mean, has of them."""
    slopes = measured.slopes
    if slopes is None:
        return ()
    known = {
        domain_name(name): dict(zip(slopes.experts, each, strict=True))
        for name, each in slopes.domains.items()
    }
    return slopes_for(domain, known)


def partly_scored(one: Completed, domain: str, data_hash: str) -> dict[str, Any]:
    """What a row says of the text that its merge was scored on.

    Args:
        domain: As the row names it.
        data_hash: Of the whole text.
    """
    if one.whole:
        return {"data_hash": data_hash}
    errors = {domain_name(name): error for name, error in one.errors.items()}
    n_tokens = {domain_name(name): count for name, count in one.n_tokens.items()}
    error = math.sqrt(sum(error**2 for error in errors.values())) / len(errors)
    return {
        "data_hash": f"{data_hash}{PARTLY}{one.measured.parts} of {N_PARTS}",
        "n_tokens": n_tokens.get(domain, sum(n_tokens.values())),
        "text_se": _se(errors.get(domain, error)),
    }
