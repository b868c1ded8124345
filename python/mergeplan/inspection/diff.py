"""How far are two checkpoints apart, tensor by tensor?"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.checkpoints.opening import open_stored
from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import printable
from mergeplan.errors import InputError, MissingInputError
from mergeplan.planning.document import to_json
from mergeplan.system.files import expanded
from mergeplan.system.progress import Shown, shown_as_bar

if TYPE_CHECKING:
    from mergeplan._native import TensorDistance

Status = Literal["equal", "differs", "only in a", "only in b", "shape", "dtype"]
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
# Worst first; whoever misses a tensor cannot be loaded.
_ORDER: tuple[Status, ...] = ("only in a", "only in b", "shape", "dtype", "differs", "equal")


@dataclass(frozen=True)
class Side:
    """A tensor in one of the checkpoints; `dtype` is safetensors' name."""

    dtype: str
    shape: list[int]
    file: str
    n_bytes: int


@dataclass(frozen=True)
class TensorDiff:
    """One tensor of two checkpoints.

    Attributes:
        status: `dtype` where the dtypes differ, whether or not the values could be compared.
        a, b: Where it is; `None` on the side that lacks it.
        distance: `None` where the two cannot be compared.
    """

    tensor: str
    status: Status
    a: Side | None
    b: Side | None
    distance: "TensorDistance | None" = None

    @property
    def badness(self) -> tuple[float, ...]:
        """Sorts the worst first."""
        found = self.distance
        if found is None:
            return (_ORDER.index(self.status),)
        share = found.differing / max(found.elements, 1)
        order = _ORDER.index(self.status)
        return (order, -found.unmatched, -(found.max_ulp or 0), -(found.mean_ulp or 0), -share)


@dataclass(frozen=True, repr=False)
class Diff(Summarized):
    """Every tensor of two checkpoints, the worst first.

    Attributes:
        tolerance_ulp: No element of a tensor that counts as equal is farther off than this.
    """

    tensors: tuple[TensorDiff, ...]
    read_bytes: int
    tolerance_ulp: int = 0

    @property
    def differing(self) -> tuple[TensorDiff, ...]:
        """The tensors that do not count as equal."""
        return tuple(tensor for tensor in self.tensors if tensor.status != "equal")

    def verdict(self) -> str:
        """One line."""
        differing, total = len(self.differing), len(self.tensors)
        within = f" within {self.tolerance_ulp} ULP" if self.tolerance_ulp else ""
        if not differing:
            return f"equal{within}: {total} tensors"
        worst = max((t.distance.max_ulp or 0 for t in self.differing if t.distance), default=0)
        at_most = f"; at most {worst} ULP apart" if worst else ""
        return (
            f"{differing} of {total} tensors differ, {total - differing} are equal{within}{at_most}"
        )

    def summary(self) -> str:
        """The verdict, and a row for each tensor that differs."""
        return "\n".join([self.verdict(), *diff_rows(self.differing)])

    def records(self) -> list[dict[str, Any]]:
        """A row for each tensor, the worst first."""
        return [
            {
                "tensor": one.tensor,
                "status": one.status,
                **{name: getattr(one.distance, name, None) for name in _DISTANCE},
            }
            for one in self.tensors
        ]

    def data(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        tensors = []
        for tensor in self.tensors:
            found = tensor.distance
            sides = {
                name: side and {"dtype": side.dtype, "shape": side.shape, "file": side.file}
                for name, side in (("a", tensor.a), ("b", tensor.b))
            }
            distance = found and {name: getattr(found, name) for name in _DISTANCE}
            entry = {
                "tensor": tensor.tensor,
                "status": tensor.status,
                **sides,
                "distance": distance,
            }
            tensors.append(entry)
        return {
            "equal": not self.differing,
            "tolerance_ulp": self.tolerance_ulp,
            "differing": len(self.differing),
            "read_bytes": self.read_bytes,
            "tensors": tensors,
        }


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


def diff(
    a: str | Path,
    b: str | Path,
    *,
    tolerance_ulp: int = 0,
    ignore_dtype: bool = False,
    threads: int | None = None,
    progress: Shown = None,
) -> Diff:
    """Compare two checkpoints.

    Values of float32, bfloat16 and float16 are compared, across these dtypes too; there both are
    widened to float32 for the difference, and rounded to the coarser dtype (bfloat16 before
    float16 before float32) for the ULPs. NaN equals NaN and 0 equals -0. Other dtypes are compared
    by their bytes. Of a quantised model it is what the files hold, in 8 bits beside its scales.

    Args:
        a, b: Folders of checkpoints, or files.
        tolerance_ulp: A tensor counts as equal where no element is farther off than this, and NaN
            and infinity stand at the same places.
        ignore_dtype: Judge tensors of different dtypes by their values alone.
        threads: Worker threads; `None` for one on each core.
        progress: Called some ten times a second with bytes done and bytes in all; or true for a
            bar, false for none, `None` for one in a notebook.

    Returns:
        Every tensor of either, the worst first.

    Raises:
        MissingInputError, InputError: A checkpoint is missing or damaged.
        SurroundingsError: A file cannot be read.

    Example:
        >>> import mergeplan
        >>> found = mergeplan.diff("pool/base", "pool/js")
        >>> len(found.differing), found.differing[0].distance.nan_a
        (27, 0)
    """
    from mergeplan._native import tensor_distances

    paths = expanded(a), expanded(b)
    one, two = (_stored(path) for path in paths)
    first, second = _sides(one), _sides(two)
    pairs = [
        name
        for name in first.keys() & second.keys()
        if first[name].shape == second[name].shape
        and (
            first[name].dtype == second[name].dtype
            or (first[name].dtype in FLOATS and second[name].dtype in FLOATS)
        )
    ]
    total = sum(first[name].n_bytes + second[name].n_bytes for name in pairs)
    with shown_as_bar(progress, "B") as told:
        distances = tensor_distances(
            to_json(one.planned({})),
            to_json(two.planned({})),
            pairs,
            threads=threads or os.cpu_count() or 1,
            progress=(lambda done: told(done, total)) if told else None,
        )
    by_name = dict(zip(pairs, distances, strict=True))
    found = []
    for name in first.keys() | second.keys():
        a_side, b_side, distance = first.get(name), second.get(name), by_name.get(name)
        status = _status(a_side, b_side, distance, tolerance_ulp, ignore_dtype)
        found.append(TensorDiff(name, status, a_side, b_side, distance))
    found.sort(key=lambda tensor: (tensor.badness, tensor.tensor))
    return Diff(tuple(found), total, tolerance_ulp)


def _stored(path: Path) -> Checkpoint:
    if not path.exists():
        raise MissingInputError(
            f"`{path}` does not exist", "give the folder of a checkpoint, or its file"
        )
    checkpoint = open_stored(str(path), shard_too=True)
    if checkpoint.made:
        raise InputError(
            f"`{path}` is an adapter, not a whole model",
            "merge it with its base by `merge_method: passthrough`, and compare the output",
        )
    return checkpoint


def _sides(checkpoint: Checkpoint) -> dict[str, Side]:
    return {
        name: Side(tensor.dtype, list(tensor.shape), tensor.file, tensor.n_bytes)
        for name, tensor in checkpoint.tensors.items()
    }


def _status(
    a: Side | None,
    b: Side | None,
    distance: "TensorDistance | None",
    tolerance_ulp: int,
    ignore_dtype: bool,
) -> Status:
    if a is None:
        return "only in b"
    if b is None:
        return "only in a"
    if a.shape != b.shape:
        return "shape"
    if distance is None or (a.dtype != b.dtype and not ignore_dtype):
        return "dtype"
    if distance.max_ulp is None:
        return "differs" if distance.differing else "equal"
    near = distance.max_ulp <= tolerance_ulp and not distance.unmatched
    return "equal" if near else "differs"
