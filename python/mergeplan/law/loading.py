"""Fits in whichever way a user has them: fitted, in a law file, or still to be fitted."""

from pathlib import Path

from mergeplan.law.file import load_law
from mergeplan.law.fit import fit
from mergeplan.law.fit_result import FitResult
from mergeplan.measurements.rows import Measurements
from mergeplan.system.files import expanded


def is_law(path: str | Path) -> bool:
    """Whether a file holds a law, by its name, and no measurements."""
    return expanded(path).suffix.lower() == ".json"


def is_table(path: str | Path) -> bool:
    """Whether a path is a file of measurements, which can be read more than once."""
    return not is_law(path) and expanded(path).is_file()


def fits_of(source: FitResult | Measurements | str | Path) -> FitResult:
    """Fits, or those of a file of measurements or of a law.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is at fault.
    """
    if isinstance(source, FitResult):
        return source
    if isinstance(source, Measurements) or not is_law(source):
        return fit(source)
    return load_law(source)
