"""What a calibration for the best subset says at its end."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from mergeplan.calibration.config_file import next_of, place_config
from mergeplan.calibration.run_folder import MEASUREMENTS, RunFolder
from mergeplan.config.transfer import AUTO
from mergeplan.errors import InputError
from mergeplan.evaluation.resampling import of_known_items, resampling_beside
from mergeplan.measurements.file import read_rows
from mergeplan.measurements.metrics import targets_of
from mergeplan.measurements.rows import MACRO, target_name
from mergeplan.pool.pool import load_pool
from mergeplan.selection.geometry import grams_beside
from mergeplan.selection.select import select_each
from mergeplan.selection.selection import Selection, Selections, Wish, worse_weights
from mergeplan.selection.sizes import link_sizes
from mergeplan.selection.slopes import rows_with_slopes
from mergeplan.selection.table import tables_of
from mergeplan.system.users_code import allowing
from mergeplan.verdict.verdict import Verdict


@dataclass(frozen=True)
class ChoiceSummary:
    """Files and words.

    Attributes:
        config: The verdict's merge; `None` where merging does not pay.
        selections: Of each method and base size, the best first.
        next_command: Writes other choices from the same measurements.
    """

    config: Path | None
    selections: Selections
    warnings: tuple[str, ...]
    next_command: str
    text: str = field(repr=False)


def summarize_choice(
    run: RunFolder,
    pool_file: Path,
    domains: str | None,
    verdict: Verdict | None,
    *,
    transfer: str = AUTO,
    anyway: bool = False,
) -> ChoiceSummary:
    """Say what each subset is predicted to give, and write the verdict's `merge.yml`.

    Args:
        domains: What decides; see `Wish`.
        transfer: Whether a larger base leans on a smaller one, as it was measured.
        anyway: Write the best merge's YAML also where merging does not pay.

    Raises:
        InputError: There are too few measurements to fit anything.
    """
    table = run.at(MEASUREMENTS)
    metric = run.identity.metric
    asked = targets_of(domains, metric) or (target_name(metric, MACRO) if metric else None)
    selections = _by_method(table, Wish(asked), transfer)
    first = selections[0]
    config = place_config(run, load_pool(pool_file), verdict, anyway=anyway)
    words = ["mergeplan", "select", str(table)]
    words += ["--domains", asked] if asked else []
    words += ["--method", first.table.method]
    words += ["--transfer", transfer] if transfer != AUTO else []
    kinds = {"free": first.free, "simplex": first.weighted}
    kind = next(
        (
            name
            for name, one in kinds.items()
            if one is not None and worse_weights(first, one) == ""
        ),
        None,
    )
    words += ["--weights", kind] if kind else []
    next_command = shlex.join([*words, "--pool", str(pool_file), "-o", "weighted.yml", *allowing()])
    files = ", ".join(map(str, filter(None, (table, config))))
    following = next_of(verdict, config, next_command)
    # Of ties other weights are none, and what comes next is said once.
    others = [f"other weights: {next_command}"] if kind and following != next_command else []
    return ChoiceSummary(
        config=config,
        selections=selections,
        warnings=tuple(w for w in selections.warnings if verdict is None or w not in verdict.notes),
        next_command=next_command,
        text="\n".join(
            [
                selections.summary(),
                "",
                f"files: {files}",
                f"next: {following}",
                *others,
            ]
        ),
    )


def _by_method(table: Path, wish: Wish, transfer: str) -> Selections:
    """Each from its own method's rows, as its rounds were chosen; the best first.

    `select` takes an average for a point of task arithmetic's surface and may name another subset.
    """
    rows = rows_with_slopes(table, read_rows(table)[0])
    resampling = resampling_beside(table, rows)
    rows = of_known_items(rows, resampling)
    found: list[Selection] = []
    faults: list[InputError] = []
    unfitted: list[str] = []
    grams = grams_beside(table, rows)
    for label in sorted({row.method for row in rows if row.k}):
        mine = (row for row in rows if row.k == 0 or row.method == label)
        tables = link_sizes(tables_of(mine, label), transfer)
        fits = select_each(tables, wish, resampling, grams, transfer=transfer)
        found += fits.found
        faults += fits.faults
        unfitted += fits.unfitted
    if not found and faults:
        raise faults[0]
    if not found:
        raise InputError(
            "no merge was measured: there is nothing to fit",
            "only the base was, or nothing: the same command with a larger `--budget` goes on",
        )
    # Without bounds: every selection has a best.
    sign = -1.0 if found[0].law.higher else 1.0
    found.sort(key=lambda one: sign * one.best.value if one.best else float("inf"))
    return Selections(found, tuple(unfitted))
