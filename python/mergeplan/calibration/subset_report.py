"""What a calibration for the best subset says at its end."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from mergeplan.calibration.run_folder import CONFIG, MEASUREMENTS, RunFolder
from mergeplan.errors import InputError
from mergeplan.measurements.file import read_rows
from mergeplan.pool.pool import load_pool
from mergeplan.selection.select import chosen_of, select_from
from mergeplan.selection.selection import Selections, Wish
from mergeplan.selection.table import tables_of
from mergeplan.selection.write import yaml_of


@dataclass(frozen=True)
class ChoiceSummary:
    """Files and words.

    Attributes:
        config: The best subset's YAML.
        selections: Of each method and base size, the best first.
        next_command: Writes other choices from the same measurements.
    """

    config: Path
    selections: Selections
    warnings: tuple[str, ...]
    next_command: str
    text: str = field(repr=False)


def summarize_choice(run: RunFolder, pool_file: Path, domains: str | None) -> ChoiceSummary:
    """Name the best subset by all of a run's measurements, and write `merge.yml` beside them.

    Args:
        domains: What decides; see `Wish`.

    Raises:
        InputError: There are too few measurements to fit anything.
    """
    table = run.at(MEASUREMENTS)
    selections = _by_method(table, Wish(domains))
    first = selections[0]
    text = yaml_of(first, chosen_of(first, "equal"), load_pool(pool_file))
    config = run.place(CONFIG, text)
    words = ["mergeplan", "select", str(table)]
    words += ["--domains", domains] if domains else []
    words += ["--method", first.table.method]
    words += ["--weights", "free"] if first.free is not None else []
    next_command = shlex.join([*words, "--pool", str(pool_file), "-o", "weighted.yml"])
    return ChoiceSummary(
        config=config,
        selections=selections,
        warnings=first.warnings,
        next_command=next_command,
        text="\n".join(
            [
                selections.summary(),
                "",
                f"files: {table}, {config}",
                f"merge it: mergeplan merge {config} OUT_DIR",
                f"next: {next_command}",
            ]
        ),
    )


def _by_method(table: Path, wish: Wish) -> Selections:
    """Each from its own method's rows, as its rounds were chosen; the best first.

    `select` takes an average for a point of task arithmetic's surface and may name another subset.
    """
    rows, _ = read_rows(table)
    found, faults = [], []
    for label in sorted({row.method for row in rows if row.k}):
        for own in tables_of((row for row in rows if row.k == 0 or row.method == label), label):
            try:
                found.append(select_from(own, wish))
            except InputError as error:
                faults.append(error)
    if not found:
        raise faults[0] if faults else InputError("no merge was measured: there is nothing to fit")
    # Losses without bounds: every selection has a best.
    return Selections(sorted(found, key=lambda one: one.best.value if one.best else float("inf")))
