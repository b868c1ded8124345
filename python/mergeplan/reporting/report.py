"""The page of one or more runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergeplan.calibration.run_folder import files_read
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted, format_bytes
from mergeplan.errors import InputError
from mergeplan.reporting.core import core_data
from mergeplan.reporting.page import page_text
from mergeplan.reporting.panels import PANELS
from mergeplan.reporting.source import Source, open_source
from mergeplan.reporting.tuned import PANELS as TUNED_PANELS
from mergeplan.reporting.tuned import TunedSource, open_tuned
from mergeplan.system.blas import on_one_thread
from mergeplan.system.files import expanded
from mergeplan.system.writing import refuse_existing, write_durably
from mergeplan.tuning.status import is_tuning

FORMAT, VERSION = "mergeplan.report", 1
MOST_BYTES = 3_000_000


@dataclass(frozen=True, repr=False)
class Report(Summarized):
    """A page that was written.

    Attributes:
        out: Where it is.
        n_bytes: Its size.
        notes: What did not fit on it.
        warnings: What could not be shown, and why.
    """

    out: Path
    n_bytes: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """Where it is, how large, and what did not fit."""
        lines = [f"{self.out}: {format_bytes(self.n_bytes)}"]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def report(
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    pool_file: str | Path | None = None,
    metric: str | None = None,
    pool_size: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Report:
    """Write one self-contained page: verdict, law, subsets, experts, and what they rest on.

    Args:
        sources: Run folders of `calibrate` or `tune`, or CSVs of measurements.
        out: The page, a file of HTML.
        pool_file: The pool's YAML, for the merge's own and for commands.
        metric: What decides; by default the losses, or the first metric of a table without any.
        pool_size: Number of experts that there are, where a table does not say it.
        overwrite: Whether a file that is there may be replaced; none of the sources' ever is.
        say: Told what takes a while.

    Returns:
        Where the page is, and what did not fit on it.

    Raises:
        MissingInputError: A source is not there, or its run has measured nothing yet.
        InputError: A source is no run and no table.
        ExistsError: There is a file already.

    Example:
        >>> import mergeplan
        >>> mergeplan.report("pool/measurements.csv", "report.html").out.name
        'report.html'
    """
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    if not paths:
        raise InputError("no run and no table is named")
    out = expanded(out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"`{out}`: a page is HTML", "name it `report.html`")
    read = [file for path in paths for file in files_read(expanded(path))]
    read += [expanded(pool_file)] if pool_file else []
    refuse_existing(out, overwrite=overwrite, inputs=read)
    pool_file = None if pool_file is None else expanded(pool_file)
    some: list[Source | TunedSource] = [
        open_tuned(path, pool_file)
        if is_tuning(expanded(path))
        else open_source(path, pool_file=pool_file, metric=metric, pool_size=pool_size)
        for path in paths
    ]
    room = Source.room // len(some)
    some = [replace(one, room=room) if isinstance(one, Source) else one for one in some]
    for one in some:
        say(one.told)
        one.read()
    text, notes = report_text(some)
    write_durably(out, text, replace=overwrite)
    return Report(out, len(text.encode()), notes, tuple(w for one in some for w in one.warnings))


@on_one_thread
def report_text(sources: Sequence[Source | TunedSource]) -> tuple[str, tuple[str, ...]]:
    """The page of some sources, and what did not fit on it.

    Raises:
        InputError: A table is at fault.
    """
    runs = [one.run() if isinstance(one, TunedSource) else _run(one) for one in sources]
    notes = tuple(dict.fromkeys(note for run in runs for note in run["notes"]))
    shown = [
        name for name in (*TUNED_PANELS, *PANELS) if any(name in run["panels"] for run in runs)
    ]
    title = ", ".join(run["name"] for run in runs)
    data = {"format": FORMAT, "version": VERSION, "runs": runs}
    text = page_text(data, shown, f"{title} - mergeplan")
    if len(text.encode()) > MOST_BYTES:
        n = counted(len(runs), "runs")
        raise InputError(
            f"the page of {n} would take {format_bytes(len(text.encode()))}, more than"
            f" {format_bytes(MOST_BYTES)}",
            "write a page for each run, or of fewer merges",
        )
    return text, notes


def _run(source: Source) -> dict[str, Any]:
    core = core_data(source)
    panels = {name: found for name, panel in PANELS.items() if (found := panel(source)) is not None}
    left_out = [note for one in (core, *panels.values()) for note in one.pop("left_out_notes", ())]
    files = [source.table, *([] if source.pool_file is None else [source.pool_file])]
    folders = {
        f"{own.parent}/" for file in files for own in (file, file.absolute(), file.resolve())
    }
    panels = _without([one for one in folders if Path(one).is_absolute()], panels)
    return {"name": source.name, **core, "panels": panels, "notes": left_out}


def _without(folders: list[str], value: Any) -> Any:
    """The same without this machine's folders, which messages name."""
    if isinstance(value, dict):
        return {key: _without(folders, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without(folders, one) for one in value]
    if isinstance(value, str):
        for folder in folders:
            value = value.replace(folder, "")
    return value
