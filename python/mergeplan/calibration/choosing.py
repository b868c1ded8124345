"""What a calibration for the best subset says at its end."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from mergeplan.calibration.store import MEASUREMENTS
from mergeplan.output import write_durably
from mergeplan.pool import load_pool
from mergeplan.selection.render import describe
from mergeplan.selection.selecting import Selection, Wish, chosen_of, select
from mergeplan.selection.writing import yaml_of


@dataclass(frozen=True)
class ChoiceSummary:
    """Files and words.

    Attributes:
        config: The best subset's YAML.
        selections: Of each method and base size, the best first.
        next_command: Writes other choices from the same measurements.
    """

    config: Path
    selections: tuple[Selection, ...]
    warnings: tuple[str, ...]
    next_command: str
    text: str = field(repr=False)


def summarize_choice(folder: Path, pool_file: Path, domains: str | None) -> ChoiceSummary:
    """Name the best subset by all of a run's measurements, and write `merge.yml` beside them.

    Args:
        domains: What decides; see `Wish`.

    Raises:
        InputError: There are too few measurements to fit anything.
    """
    table = folder / MEASUREMENTS
    selections = select(table, wish=Wish(domains))
    first = selections[0]
    config = folder / "merge.yml"
    write_durably(config, yaml_of(first, chosen_of(first, "equal"), load_pool(pool_file)))
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
                describe(selections),
                "",
                f"files: {table}, {config}",
                f"merge it: mergeplan merge {config} OUT_DIR",
                f"next: {next_command}",
            ]
        ),
    )
