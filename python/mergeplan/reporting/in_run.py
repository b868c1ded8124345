"""The page in a run's own folder: after rounds, and at the end."""

import time
from pathlib import Path

from mergeplan.calibration.run_folder import MEASUREMENTS, PAGE, RunFolder
from mergeplan.errors import InputError
from mergeplan.reporting.report import report_text
from mergeplan.reporting.source import open_source

# A page after a round may take this share of the time since the last one.
_SHARE = 0.1


class RunPage:
    """Writes `report.html` anew, without the curves of single domains, which take longest.

    Args:
        pool_file: The run's pool, for the YAML.
    """

    def __init__(self, pool_file: Path) -> None:
        self._pool_file = pool_file
        self._done = time.perf_counter()
        self._takes = 0.0

    def after_round(self, run: RunFolder) -> None:
        """Write it, unless pages would take more than a tenth of the time."""
        if time.perf_counter() - self._done > self._takes / _SHARE:
            self.write(run)

    def write(self, run: RunFolder) -> Path | None:
        """Write it.

        Returns:
            Where it is; `None` where nothing can be shown yet.

        Raises:
            SurroundingsError: It cannot be written.
        """
        begun = time.perf_counter()
        try:
            source = open_source(
                run.path,
                table=run.at(MEASUREMENTS),
                pool_file=self._pool_file,
                metric=run.identity.metric or None,
                brief=True,
            )
            text, _ = report_text([source])
        except InputError:
            return None
        path = run.place(PAGE, text)
        self._done = time.perf_counter()
        self._takes = self._done - begun
        return path
