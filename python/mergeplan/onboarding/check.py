"""Everything that is wrong with a config or a pool, before anything is run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.calibration.forecast import most_of
from mergeplan.calibration.options import CalibrateOptions, check_options
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted, format_count, printable
from mergeplan.errors import InputError
from mergeplan.evaluation.documents import read_documents
from mergeplan.inspection.compatibility import as_merge_tells
from mergeplan.inspection.inspect import inspect
from mergeplan.pool.file import find_pool
from mergeplan.pool.opening import absent_texts, model_faults
from mergeplan.pool.pool import Pool, load_pool
from mergeplan.pool.vocabularies import vocabulary_faults
from mergeplan.system.excerpts import with_excerpts
from mergeplan.system.files import expanded, is_there
from mergeplan.system.reading import POOL, read_text
from mergeplan.system.yamlfile import parse_leniently


@dataclass(frozen=True, repr=False)
class Check(Summarized):
    """What is wrong with a file.

    Attributes:
        faults: All of them, each with the line that it is about where there is one.
        does: What it would do, where there are none.
    """

    path: Path
    faults: tuple[InputError, ...]
    does: str

    def summary(self) -> str:
        """Every fault with its line; or that there are none, and what the file would do."""
        if not self.faults:
            return f"{self.path} is fine\n{self.does}"
        lines = [f"{self.path}: {counted(len(self.faults), 'faults')}"]
        for fault in self.faults:
            hint = f"hint: {fault.hint}" if fault.hint else ""
            lines += filter(None, (f"error: {fault.message}", fault.excerpt, hint))
        return "\n".join(lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for each fault."""
        return [{"line": one.line, "message": one.message, "hint": one.hint} for one in self.faults]

    def data(self) -> dict[str, Any]:
        """Ready for JSON."""
        rows = zip(self.records(), self.faults, strict=True)
        return {
            "fine": not self.faults,
            "faults": [{**row, "excerpt": fault.excerpt} for row, fault in rows],
            "path": self.path,
            "does": "" if self.faults else self.does,
        }


def check(path: str | Path) -> Check:
    """Look for everything that is wrong with a config or a pool; nothing is written.

    Args:
        path: A merge's config, or a `pool.yml`, which has `sizes`.

    Returns:
        All faults: keys and values, models that are not there or do not fit, texts. Without any,
        what the file would do.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read.
    """
    path = expanded(path)
    data = parse_leniently(read_text(path, POOL))
    is_pool = isinstance(data, dict) and "sizes" in data and "merge_method" not in data
    return _check_pool(path) if is_pool else _check_config(path)


def _check_config(path: Path) -> Check:
    found = inspect([path])
    return Check(path, tuple(as_merge_tells(found.merges[0].problems)), found.summary())


def _check_pool(path: Path) -> Check:
    found = find_pool(path)
    faults = model_faults(found.sizes) or vocabulary_faults(found.sizes)
    faults += [*absent_texts(found.data), *_bad_texts(found.data)]
    if found.faults or faults:
        return Check(path, (*found.faults, *with_excerpts(faults, found.text)), "")
    try:
        return Check(path, (), _does(path, load_pool(path)))
    except InputError as error:
        return Check(path, tuple(with_excerpts(error.faults, found.text)), "")


def _bad_texts(data: Mapping[str, Path]) -> list[InputError]:
    """Lines of the texts that are there, and cannot be read."""
    faults = []
    for domain, path in data.items():
        try:
            if is_there(path):
                read_documents(path)
        except InputError as error:
            faults += [InputError(f"`data.{domain}`: {e.message}", e.hint) for e in error.faults]
    return faults


def _does(path: Path, pool: Pool) -> str:
    """What `calibrate` would measure; the texts are read for it.

    Raises:
        InputError: What it would refuse.
    """
    lines = [
        f"{counted(len(size.experts), 'experts')} of `{printable(str(size.base))}`,"
        f" {format_count(size.count_params())} parameters"
        for size in pool.sizes
    ]
    lines.append(f"merged by {', '.join(pool.methods)}")
    if not pool.data:
        return "\n".join([*lines, "without `data`: `calibrate` needs it, `--scorer` or `--tasks`"])
    options = CalibrateOptions()
    most = most_of(check_options(path, options), options)
    lines.append(
        f"scored on {', '.join(pool.data)}: `mergeplan calibrate` measures"
        f" {counted(most.merges, 'merges')} at most, {most.tokens:,.0f} tokens"
    )
    return "\n".join(lines)
