"""`law.json`: fits that reload to the same predictions.

The file holds the mean losses and the settings beside the coefficients. Intervals are recomputed
from them with the same seed, so that they need not be stored draw by draw.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen, Predicate

from mergeplan.law.curve import Fit
from mergeplan.law.fit_result import FitResult
from mergeplan.law.joint import JointFit
from mergeplan.law.joint_draws import SIZE_EFFECT
from mergeplan.law.series import Series
from mergeplan.system.files import expanded
from mergeplan.system.ranges import version_is
from mergeplan.system.reading import LAW
from mergeplan.system.strict import load_strictly
from mergeplan.system.writing import write_durably

VERSION = 4


def _in_order(series: Series) -> None:
    ks = [point.k for point in series.points]
    if ks != sorted(set(ks)) or ks[-1] > series.pool_size:
        raise ValueError(f"each k once, in order, up to the pool size of {series.pool_size}")
    values = [point.loss for point in series.points]
    values += [x.best_loss for x in series.points if x.best_loss is not None]
    values += series.averaged.losses if series.averaged else ()
    turned = [series.scale.turned(value) for value in values]
    if min(turned) < 0 or (not series.scale.metric and min(turned) <= 0):
        raise ValueError("losses above 0, or values of a metric on the better side of its `zero`")
    if series.averaged is not None and len(series.averaged.losses) != series.pool_size:
        raise ValueError(f"an `averaged` law of {series.pool_size} losses, one for each k")
    if series.covariance:
        _check_covariance(series)


def _check_covariance(series: Series) -> None:
    count = len(series.points)
    if [len(row) for row in series.covariance] != [count] * count:
        raise ValueError(f"a `covariance` of {count} rows and columns, one for each k")
    matrix = np.array(series.covariance)
    scale = float(np.abs(matrix).max())
    if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix).min() < -1e-6 * scale:
        raise ValueError("a `covariance` that is symmetric and has no negative eigenvalues")


def _one_curve(fit: Fit) -> bool:
    _in_order(fit.series)
    return True


def _curves(joint: JointFit) -> bool:
    for series in joint.series:
        _in_order(series)
    sizes = {series.n_params for series in joint.series}
    if None in sizes or len(sizes) < max(3, len(joint.series)):
        raise ValueError("curves of three or more `n_params`, each once")
    return True


@dataclasses.dataclass(frozen=True)
class LawFile:
    """What the file holds; intervals and the formula are there for readers."""

    law_version: Annotated[int, Predicate(version_is(VERSION, f"law version {VERSION}"))]
    data_sha256: str
    fits: Annotated[tuple[Annotated[Fit, Predicate(_one_curve)], ...], MinLen(1)]
    joints: tuple[Annotated[JointFit, Predicate(_curves)], ...]
    skipped: tuple[str, ...]


def save_law(result: FitResult, path: str | Path, *, replace: bool = True) -> None:
    """Write a law file, which `load_law` reads to the same predictions.

    Args:
        replace: Whether a file may be there.

    Raises:
        SurroundingsError: It cannot be written, or something is in the way.
    """
    write_durably(expanded(path), law_text(result), replace=replace)


def law_text(result: FitResult) -> str:
    """What a law file holds."""
    return json.dumps(law_data(result), indent=1, allow_nan=False) + "\n"


def law_data(result: FitResult) -> dict[str, Any]:
    """JSON-ready data; `n_params` is a plain count, the joint law has N in billions."""
    fits = []
    for fit in result.fits:
        speaks = {"subsets_speak": fit.subsets_speak, "voice": fit.voice}
        fits.append({**dataclasses.asdict(fit), "intervals_90": fit.intervals(), **speaks})
    joints = []
    for joint in result.joints:
        own = {
            "intervals_90": joint.intervals(),
            "size_effect_90": joint.size_effect(),
            "size_effect_prior": SIZE_EFFECT,
            "unchecked": joint.unchecked,
        }
        joints.append({**dataclasses.asdict(joint), **own})
    return {
        "law_version": VERSION,
        "form": "Linf + A / (k + b), b >= 0 in a law, b >= -0.5 in a forecast;"
        " joint: L* + B N^-beta + A0 N^-gamma / (k + b), N in billions; of a metric the form is of"
        " zero - value where more is better (1 - value for shares), else of value - zero, and"
        " so are the coefficients and their intervals; all else is on the metric's own scale",
        "data_sha256": result.data_sha256,
        "skipped": list(result.skipped),
        "fits": fits,
        "joints": joints,
    }


def load_law(path: str | Path) -> FitResult:
    """Read a law file.

    Returns:
        The fits that were saved; their intervals are drawn again from the same seed.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no law, one of another version, or damaged; the message names the field.
    """
    hint = "fit one: `mergeplan fit MEASUREMENTS.csv -o law.json`"
    data = load_strictly(expanded(path), LawFile, LAW, hint, given=True)
    return FitResult(data.fits, data.data_sha256, data.joints, data.skipped)
