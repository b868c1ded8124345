"""`law.json`: fits that reload to the same predictions.

The file holds the mean losses and the settings beside the coefficients. Intervals are recomputed
from them with the same seed, so that they need not be stored draw by draw.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen, Predicate

from mergeplan.law.curve import Fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.joint import JointFit
from mergeplan.law.series import Series
from mergeplan.system.strict import load_strictly

VERSION = 1


def _version(found: int) -> bool:
    if found != VERSION:
        raise ValueError(f"law version {VERSION}")
    return True


def _in_order(series: Series) -> None:
    ks = [point.k for point in series.points]
    if ks != sorted(set(ks)) or ks[-1] > series.pool_size:
        raise ValueError(f"each k once, in order, up to the pool size of {series.pool_size}")


def _one_curve(fit: Fit) -> bool:
    _in_order(fit.series)
    return True


def _curves(joint: JointFit) -> bool:
    for series in joint.series:
        _in_order(series)
        if series.n_params is None:
            raise ValueError("curves that say their `n_params`")
    return True


@dataclasses.dataclass(frozen=True)
class LawFile:
    """What the file holds; intervals and the formula are there for readers."""

    law_version: Annotated[int, Predicate(_version)]
    data_sha256: str
    fits: Annotated[tuple[Annotated[Fit, Predicate(_one_curve)], ...], MinLen(1)]
    joints: tuple[Annotated[JointFit, Predicate(_curves)], ...]
    skipped: tuple[str, ...]


def law_data(result: FitResult) -> dict[str, Any]:
    """JSON-ready data; `n_params` is a plain count, the joint law has N in billions."""
    fits = []
    for fit in result.fits:
        fits.append({**dataclasses.asdict(fit), "intervals_90": fit.intervals()})
    joints = []
    for joint in result.joints:
        joints.append({**dataclasses.asdict(joint), "intervals_90": joint.intervals()})
    return {
        "law_version": VERSION,
        "form": "Linf + A / (k + b); joint: L* + B N^-beta + A0 N^-gamma / (k + b), N in billions",
        "data_sha256": result.data_sha256,
        "skipped": list(result.skipped),
        "fits": fits,
        "joints": joints,
    }


def load_law(path: Path) -> FitResult:
    """Read a law file.

    Returns:
        The fits that were saved; their intervals are drawn again from the same seed.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no law, one of another version, or damaged; the message names the field.
    """
    hint = f"fit it: `mergeplan fit MEASUREMENTS.csv -o {path}`"
    data = load_strictly(path, LawFile, "law", hint)
    return FitResult(data.fits, data.data_sha256, data.joints, data.skipped)
