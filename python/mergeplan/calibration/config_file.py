"""`merge.yml` of a run: the verdict's merge, or none."""

from dataclasses import dataclass, field
from pathlib import Path

from mergeplan.calibration.run_folder import CONFIG, MEASUREMENTS, RunFolder
from mergeplan.pool.pool import Pool
from mergeplan.system.users_code import allowing
from mergeplan.verdict.verdict import Verdict
from mergeplan.verdict.write import contender_yaml, merge_to_write


def place_config(
    run: RunFolder, pool: Pool, verdict: Verdict | None, *, anyway: bool
) -> Path | None:
    """Write the verdict's merge; where there is none, remove one that was written before.

    Args:
        anyway: The best merge also where merging does not pay.

    Raises:
        SurroundingsError: It cannot be written.
    """
    one = merge_to_write(verdict, anyway=anyway) if verdict is not None else None
    if verdict is None or one is None:
        run.withdraw(CONFIG)
        return None
    return run.place(CONFIG, contender_yaml(one, verdict, pool, by="calibrate"))


def merging(config: Path) -> str:
    """The command that runs a config."""
    return " ".join(["mergeplan merge", str(config), "OUT_DIR", *allowing()])


def next_of(verdict: Verdict | None, config: Path | None, otherwise: str) -> str:
    """The command that goes on: measure more, merge, or something else."""
    if verdict is not None and verdict.kind == "measure" and verdict.to_measure is not None:
        return verdict.to_measure.command or otherwise
    return otherwise if config is None else merging(config)


@dataclass(frozen=True)
class BareSummary:
    """What is left to say where nothing can be fitted to the few merges of a run.

    Attributes:
        config: The verdict's merge; `None` where merging does not pay.
        warnings: Why nothing can be fitted.
    """

    config: Path | None
    warnings: tuple[str, ...]
    next_command: str
    text: str = field(repr=False)


def summarize_unfitted(
    run: RunFolder, pool: Pool, verdict: Verdict, why: str, again: str, *, anyway: bool
) -> BareSummary:
    """Write the verdict's `merge.yml` of a run that nothing can be fitted to.

    Args:
        why: Of that.
        again: The command that goes on where the verdict has none.
    """
    config = place_config(run, pool, verdict, anyway=anyway)
    next_command = next_of(verdict, config, again)
    files = ", ".join(map(str, filter(None, (run.at(MEASUREMENTS), config))))
    return BareSummary(config, (why,), next_command, f"files: {files}\nnext: {next_command}")
