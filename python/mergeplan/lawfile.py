"""`law.json`: fits that reload to the same predictions."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mergeplan.errors import InputError, MissingInputError
from mergeplan.fitting import Fit, FitResult
from mergeplan.laws import SizeLaw
from mergeplan.measurements import Point, Series

VERSION = 1


def to_data(result: FitResult) -> dict[str, Any]:
    """JSON-ready data; N is a plain count of parameters."""
    return {
        "law_version": VERSION,
        "form": "Linf + A / (k + b)",
        "data_sha256": result.data_sha256,
        "skipped": list(result.skipped),
        "fits": [dataclasses.asdict(fit) for fit in result.fits],
    }


def load_law(path: Path) -> FitResult:
    """Read a law file.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no law, or one of a newer version.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open `{path}`: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read law `{path}`: {error}") from error
    found = data.get("law_version") if isinstance(data, dict) else None
    if found != VERSION:
        raise InputError(
            f"`{path}`: expected law version {VERSION}, found {found}",
            "fit it again with this version of mergeplan",
        )
    try:
        fits = tuple(_fit(entry) for entry in data["fits"])
        return FitResult(fits, data["data_sha256"], tuple(data["skipped"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"`{path}` is damaged: {error}", "fit it again") from error


def _fit(data: dict[str, Any]) -> Fit:
    series = dict(data["series"])
    series["points"] = tuple(
        Point(**{**point, "best_subset": tuple(point["best_subset"])}) for point in series["points"]
    )
    if series["best_single"] is not None:
        series["best_single"] = tuple(series["best_single"])
    series["warnings"] = tuple(series["warnings"])
    return Fit(Series(**series), SizeLaw(**data["law"]), data["r2"], tuple(data["warnings"]))
