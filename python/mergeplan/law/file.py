"""`law.json`: fits that reload to the same predictions.

The file holds the mean losses and the settings beside the coefficients. Intervals are recomputed
from them with the same seed, so that they need not be stored draw by draw.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mergeplan.errors import InputError, MissingInputError
from mergeplan.law.curve import Fit
from mergeplan.law.fit import FitResult
from mergeplan.law.formulas import JointLaw, SizeLaw
from mergeplan.law.joint import JointFit
from mergeplan.law.series import ExpertEffect, Point, Series
from mergeplan.law.spread import SpreadLaw
from mergeplan.law.tails import TailScore

VERSION = 1


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

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no law, or one of another version.
    """
    try:
        data = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read law `{path}`: {error}") from error
    found = data.get("law_version") if isinstance(data, dict) else None
    if found != VERSION:
        raise InputError(
            f"`{path}`: expected law version {VERSION}, found {found}",
            "fit it again with this version of mergeplan",
        )
    try:
        result = FitResult(
            tuple(_fit(entry) for entry in data["fits"]),
            data["data_sha256"],
            tuple(_joint(entry) for entry in data["joints"]),
            tuple(data["skipped"]),
        )
        for fit in result.fits:
            fit.law.predict(fit.series.points[-1].k)
            if not 1 <= fit.series.points[0].k <= fit.series.points[-1].k <= fit.series.pool_size:
                raise ValueError("k and pool size do not fit")
            json.loads(fit.series.options).get("lambda")
        if not result.fits:
            raise ValueError("no fits")
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise InputError(f"`{path}` is damaged: {error}", "fit it again") from error
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _fit(data: dict[str, Any]) -> Fit:
    known = {key: value for key, value in data.items() if key != "intervals_90"}
    spread = known["spread"]
    return Fit(
        **{
            **known,
            "series": _series(known["series"]),
            "law": SizeLaw(**known["law"]),
            "tails": tuple(TailScore(**score) for score in known["tails"]),
            "spread": None if spread is None else SpreadLaw(**spread),
            "warnings": tuple(known["warnings"]),
        }
    )


def _joint(data: dict[str, Any]) -> JointFit:
    known = {key: value for key, value in data.items() if key != "intervals_90"}
    series = tuple(_series(entry) for entry in known["series"])
    return JointFit(**{**known, "law": JointLaw(**known["law"]), "series": series})


def _series(data: dict[str, Any]) -> Series:
    points = (Point(**{**p, "best_subset": tuple(p["best_subset"])}) for p in data["points"])
    single = data["best_single"]
    return Series(
        **{
            **data,
            "points": tuple(points),
            "best_single": None if single is None else (single[0], single[1]),
            "effects": tuple(ExpertEffect(**effect) for effect in data["effects"]),
            "warnings": tuple(data["warnings"]),
        }
    )
