"""What a page is made of: a table of measurements, and what the run left beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from mergeplan.calibration.run_folder import MEASUREMENTS
from mergeplan.display.text import counted
from mergeplan.errors import InputError, MissingInputError
from mergeplan.evaluation.item_scores import with_item_scores
from mergeplan.evaluation.measured import RUN, MeasuredMerge, read_scores
from mergeplan.evaluation.resampling import Resampling, of_known_items, resampling_beside
from mergeplan.law.fit import fit
from mergeplan.law.fit_result import FitResult
from mergeplan.measurements.file import load_measurements, read_rows
from mergeplan.measurements.rows import MACRO, Measurement
from mergeplan.pool.pool import Pool, load_pool
from mergeplan.selection.geometry import grams_beside
from mergeplan.selection.select import select
from mergeplan.selection.selection import Selections
from mergeplan.selection.slopes import rows_with_slopes
from mergeplan.system.files import expanded
from mergeplan.system.folders import what_is
from mergeplan.verdict.answer import verdict_of
from mergeplan.verdict.from_selections import verdict_from_selections
from mergeplan.verdict.verdict import Verdict

Group = tuple[float | None, str, str]


class Grouped(Protocol):
    """What is of one base size, method and options: a row, a table, a series, a merge."""

    @property
    def n_params(self) -> float | None: ...
    @property
    def method(self) -> str: ...
    @property
    def options(self) -> str: ...


def group_of(one: Grouped) -> Group:
    """Which merges it belongs to."""
    return one.n_params, one.method, one.options


@dataclass(frozen=True)
class Target:
    """What a value is of: a domain's loss, their mean, or a metric.

    Attributes:
        name: As `select` names it.
        domain, metric: As rows have them.
    """

    name: str
    domain: str
    metric: str
    higher: bool


@dataclass(frozen=True, eq=False)
class Source:
    """One run, or one table.

    Attributes:
        name: Of the folder or the file, without its path.
        table: The CSV.
        folder: Of the run; `None` of a table alone.
        pool_file: For the YAML, and the command that measures more.
        metric: What decides; `None` for the losses.
        pool_size: Number of experts that there are, where the table does not say it.
        brief: Without the curves of what does not decide, which take longest.
        room: Bytes that its laws may take on the page.
    """

    name: str
    table: Path
    folder: Path | None
    rows: tuple[Measurement, ...]
    pool_file: Path | None = None
    metric: str | None = None
    pool_size: int | None = None
    brief: bool = False
    room: int = 1_600_000
    resampling: Resampling | None = field(default=None, repr=False)

    @cached_property
    def pool(self) -> Pool | None:
        """Its pool, where that was named."""
        return None if self.pool_file is None else load_pool(self.pool_file)

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """What was measured, what decides first, then its domains, then the others."""
        found = {
            row.target: Target(row.target, row.domain, row.metric, row.higher) for row in self.rows
        }
        deciding = self.metric or ""
        losses = [one for one in found.values() if not one.metric]
        if len(losses) > 1 and MACRO not in found:  # as every command has it
            found[MACRO] = Target(MACRO, MACRO, "", False)

        def order(target: Target) -> tuple[bool, bool, str]:
            return target.metric != deciding, target.domain != MACRO, target.name

        return tuple(sorted(found.values(), key=order))

    @cached_property
    def groups(self) -> list[Group]:
        """Sizes, methods and options that merges were measured at, those with most rows first."""
        counts = Counter(group_of(row) for row in self.rows if row.k)
        return sorted(counts, key=lambda group: (-counts[group], str(group)))

    @property
    def main(self) -> Target:
        """What decides."""
        return self.targets[0]

    @cached_property
    def experts(self) -> tuple[str, ...]:
        """Every name in the table, in one order for all that the page shows."""
        return tuple(sorted({name for row in self.rows for name in row.subset}))

    @cached_property
    def measured(self) -> list[MeasuredMerge]:
        """A run's merges with their documents' scores, in the order they were measured."""
        return [] if self.folder is None else read_scores(self.folder)

    @cached_property
    def selections(self) -> Selections | InputError:
        """What the law of single subsets says, or why it says nothing."""
        try:
            return select(self.table, metric=self.metric)
        except InputError as error:
            return error

    @cached_property
    def curves(self) -> Mapping[str, FitResult | InputError]:
        """The law of the means of each target, or why there is none."""
        tables = {}
        targets = self.targets[:1] if self.brief else self.targets
        for metric in dict.fromkeys(one.metric for one in targets):
            data = load_measurements(self.table, metric or None)
            tables[metric] = replace(data, rows=with_item_scores(self.table, data.rows))
        found: dict[str, FitResult | InputError] = {}
        for one in targets:
            try:
                # Means that bend are drawn with the law's words on them, not left out.
                found[one.name] = fit(
                    tables[one.metric],
                    domain=one.domain or None,
                    pool_size=self.pool_size,
                    anyway=True,
                )
            except InputError as error:
                found[one.name] = error
        return found

    @cached_property
    def verdict(self) -> Verdict | InputError:
        """What to do, or why nothing can be said."""
        try:
            if isinstance(self.selections, Selections):
                return verdict_from_selections(
                    self.table, self.selections, metric=self.metric, pool_file=self.pool_file
                )
            return verdict_of(self.table, metric=self.metric, pool_file=self.pool_file)
        except InputError as error:
            return error

    @property
    def told(self) -> str:
        """What is being shown, for people."""
        return f"{self.name}: {len(self.rows):,} rows"

    def read(self) -> None:
        """Fit everything that the panels show."""
        _ = self.selections, self.curves, self.verdict

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why there is no verdict, and what the run's documents lack."""
        found = []
        if isinstance(self.verdict, InputError):
            found.append(f"`{self.table}`: no verdict: {self.verdict.message}")
        return tuple(found)


def open_source(
    path: str | Path,
    *,
    table: Path | None = None,
    pool_file: str | Path | None = None,
    metric: str | None = None,
    pool_size: int | None = None,
    brief: bool = False,
) -> Source:
    """A run's folder, or a table of measurements.

    Args:
        path: Folder or CSV.
        table: Of the folder; by default `measurements.csv`.
        pool_file: The pool's YAML.
        metric: What decides; by default the losses, or the first metric of a table without any.
        pool_size, brief: See `Source`.

    Raises:
        MissingInputError: There is no such file or folder, or a run that has measured nothing yet.
        InputError: The folder is no run, or the table is at fault.
    """
    given = expanded(path)
    folder = given if given.is_dir() else None
    table = given if table is None else table
    if folder is not None:
        table = folder / MEASUREMENTS if table == given else table
        if not table.is_file():
            raise _no_table(folder)
    elif not given.exists():
        raise MissingInputError(f"cannot open `{given}`: no such file or folder")
    rows, _ = read_rows(table)
    if not rows:
        raise InputError(f"`{table}` has no rows", "measure some merges: `mergeplan calibrate`")
    if not any(row.k for row in rows):
        raise InputError(
            f"`{table}` has rows of bases only", "measure some merges: `mergeplan calibrate`"
        )
    rows = rows_with_slopes(table, with_item_scores(table, rows))
    grams_beside(table, rows)  # what is damaged is no page's matter
    resampling = resampling_beside(table, rows)
    rows = of_known_items(rows, resampling)
    return Source(
        name=given.resolve().name,
        table=table,
        folder=folder if folder is not None and (folder / RUN).is_file() else None,
        rows=rows,
        pool_file=None if pool_file is None else expanded(pool_file),
        metric=_deciding(rows, metric, table),
        pool_size=pool_size,
        brief=brief,
        resampling=resampling,
    )


def _no_table(folder: Path) -> InputError:
    if (folder / RUN).is_file():
        n = len(read_scores(folder))
        return MissingInputError(
            f"the run in `{folder}` is not finished: {counted(n, 'merges')} are measured, and it"
            f" has no `{MEASUREMENTS}` yet",
            "wait for `mergeplan calibrate`, or give it the same command again: it goes on",
        )
    if (other := what_is(folder)) is not None:
        return MissingInputError(f"`{folder}` is no run, but {other[0]}", other[1])
    return MissingInputError(
        f"`{folder}` is no run: it has no `{RUN}` and no `{MEASUREMENTS}`",
        "name a folder that `mergeplan calibrate -o` wrote, or a CSV of measurements",
    )


def _deciding(rows: Sequence[Measurement], metric: str | None, table: Path) -> str | None:
    """What decides, `None` for losses: those, or the first metric of a table without any.

    Raises:
        InputError: The metric is not there.
    """
    known = dict.fromkeys(row.metric for row in rows)
    if metric is not None and metric not in known:
        names = ", ".join(f"`{name}`" for name in known if name)
        raise InputError(f"`{table}` has no metric `{metric}`", f"it has {names or 'losses only'}")
    return (metric if metric is not None else None if "" in known else next(iter(known))) or None
