"""The page in a tuning's own folder, when it has ended."""

from pathlib import Path

from mergeplan.reporting.report import report_text
from mergeplan.reporting.tuned import open_tuned
from mergeplan.system.writing import write_durably
from mergeplan.tuning.folder import PAGE


def tuned_page(folder: Path, pool_file: Path) -> Path:
    """Write it.

    Args:
        folder: Of the run.
        pool_file: Of the run's pool, for the YAML.

    Returns:
        Where it is.

    Raises:
        SurroundingsError: It cannot be written.
    """
    text, _ = report_text([open_tuned(folder, pool_file)])
    path = folder / PAGE
    write_durably(path, text, replace=True)
    return path
