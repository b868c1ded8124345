"""`merge.yml` of a run: the verdict's merge, or none."""

from pathlib import Path

from mergeplan.calibration.run_folder import CONFIG, RunFolder
from mergeplan.pool.pool import Pool
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


def next_of(verdict: Verdict | None, config: Path | None, otherwise: str) -> str:
    """The command that goes on: measure more, merge, or something else."""
    if verdict is not None and verdict.kind == "measure" and verdict.to_measure is not None:
        return verdict.to_measure.command or otherwise
    return otherwise if config is None else f"mergeplan merge {config} OUT_DIR"
