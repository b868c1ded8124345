"""A comparison of two checkpoints as a table, a line, and data."""

from typing import Any

from mergeplan.display.table import align_columns
from mergeplan.display.text import printable
from mergeplan.inspection.diff import Diff, TensorDiff

_HEAD = ("tensor", "status", "differing", "max |d|", "mean |d|", "max ULP", "mean ULP", "NaN")
_DISTANCE = (
    "elements",
    "differing",
    "ulp_dtype",
    "unmatched",
    "nan_a",
    "nan_b",
    "max_difference",
    "mean_difference",
    "max_ulp",
    "mean_ulp",
)


def diff_rows(tensors: tuple[TensorDiff, ...]) -> list[str]:
    """A head and a row for each tensor; nothing for none."""
    if not tensors:
        return []
    return align_columns([_HEAD, *(_row(tensor) for tensor in tensors)], left=2)


def _row(tensor: TensorDiff) -> tuple[str, ...]:
    status: str = tensor.status
    if tensor.a and tensor.b and status == "shape":
        status = f"shape {tensor.a.shape} / {tensor.b.shape}"
    elif tensor.a and tensor.b and status == "dtype":
        status = f"dtype {tensor.a.dtype} / {tensor.b.dtype}"
    found = tensor.distance
    name = printable(tensor.tensor)
    if found is None:
        return (name, status, *["-"] * 6)
    share = f"{100 * found.differing / max(found.elements, 1):.3g} %"
    if found.unmatched:
        status += f", {found.unmatched} not finite on one side"
    nan = f"{found.nan_a} / {found.nan_b}" if found.nan_a or found.nan_b else "-"
    numbers = (found.max_difference, found.mean_difference, found.max_ulp, found.mean_ulp)
    cells = ["-" if n is None else f"{n}" if isinstance(n, int) else f"{n:.3g}" for n in numbers]
    return (name, status, share, *cells, nan)


def summary(result: Diff, tolerance_ulp: int) -> str:
    """One line."""
    differing, total = len(result.differing), len(result.tensors)
    within = f" within {tolerance_ulp} ULP" if tolerance_ulp else ""
    if not differing:
        return f"equal{within}: {total} tensors"
    worst = max((t.distance.max_ulp or 0 for t in result.differing if t.distance), default=0)
    at_most = f"; at most {worst} ULP apart" if worst else ""
    return f"{differing} of {total} tensors differ, {total - differing} are equal{within}{at_most}"


def diff_data(result: Diff, tolerance_ulp: int) -> dict[str, Any]:
    """Everything, ready for JSON."""
    tensors = []
    for tensor in result.tensors:
        found = tensor.distance
        sides = {
            name: side and {"dtype": side.dtype, "shape": side.shape, "file": side.file}
            for name, side in (("a", tensor.a), ("b", tensor.b))
        }
        distance = found and {name: getattr(found, name) for name in _DISTANCE}
        entry = {"tensor": tensor.tensor, "status": tensor.status, **sides, "distance": distance}
        tensors.append(entry)
    return {
        "equal": not result.differing,
        "tolerance_ulp": tolerance_ulp,
        "differing": len(result.differing),
        "read_bytes": result.read_bytes,
        "tensors": tensors,
    }
