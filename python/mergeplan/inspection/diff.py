"""How far are two checkpoints apart, tensor by tensor?"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.checkpoints.opening import open_stored
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted
from mergeplan.errors import InputError, MissingInputError
from mergeplan.inspection.tensor_diff import Side, Status, TensorDiff, diff_rows, l2_text
from mergeplan.inspection.vectors import VectorDistance, vector_distance
from mergeplan.planning.document import to_json
from mergeplan.system.files import expanded
from mergeplan.system.progress import Shown, shown_as_bar

if TYPE_CHECKING:
    from mergeplan._native import TensorDistance


@dataclass(frozen=True, repr=False)
class Diff(Summarized):
    """Every tensor of two checkpoints, the worst first: what cannot be compared, what is NaN or
    infinite on one side only, and then by share of the squared difference.

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

    @property
    def whole(self) -> VectorDistance | None:
        """All tensors whose values were compared, taken as one vector; `None` without any."""
        return vector_distance(tensor.distance for tensor in self.tensors)

    def verdict(self) -> str:
        """A line or two: how many tensors differ, and how far the models are apart in all."""
        differing, total = len(self.differing), len(self.tensors)
        within = f" within {self.tolerance_ulp} ULP" if self.tolerance_ulp else ""
        if not differing:
            return f"equal{within}: {counted(total, 'tensors')}"
        said = (
            f"{differing} of {counted(total, 'tensors')} differ, {total - differing} equal{within}"
        )
        ulps = [t.max_ulp for t in self.differing if t.vectors]
        steps = [count for count in ulps if count is not None]
        if steps and len(steps) == len(ulps):
            said += f"; at most {max(steps)} ULP apart"
        if self.whole is None:
            return said
        return f"{said}\nin all: {_in_words(self.whole)}{self._left_out()}"

    def _left_out(self) -> str:
        """What the numbers of the whole do not speak of."""
        found = [tensor.distance for tensor in self.tensors]
        tensors = sum(not tensor.vectors for tensor in self.differing)
        elements = sum(one.elements - one.finite for one in found if one and one.finite is not None)
        parts = []
        if tensors:
            parts.append(f"{counted(tensors, 'tensors')} not compared by value")
        if elements:
            parts.append(f"{counted(elements, 'elements')} NaN or infinite")
        return f"; left out: {', '.join(parts)}" if parts else ""

    def summary(self) -> str:
        """The verdict, and a row for each tensor that differs."""
        return "\n".join([self.verdict(), *diff_rows(self.differing)])

    def records(self) -> list[dict[str, Any]]:
        """A row for each tensor, the worst first."""
        return [
            {"tensor": one.tensor, "status": one.status, **one.numbers()} for one in self.tensors
        ]

    def data(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        tensors = []
        for tensor in self.tensors:
            sides = {
                name: side and {"dtype": side.dtype, "shape": side.shape, "file": side.file}
                for name, side in (("a", tensor.a), ("b", tensor.b))
            }
            distance = tensor.numbers() if tensor.distance else None
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
            "whole": self.whole and self.whole.data(),
            "read_bytes": self.read_bytes,
            "tensors": tensors,
        }


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

    Values of float32, bfloat16 and float16 are compared, across these dtypes too. Of each tensor,
    and of all as one vector, there are the relative L2, ‖a - b‖ / ‖a‖, and the cosine, from sums in
    float64 over the elements that are finite on both sides, in an order that no number of threads
    changes. NaN equals NaN and 0 equals -0; an element that is NaN or infinite on one side only
    differs, whatever the tolerance. Other dtypes are compared by their bytes alone. Of a quantised
    model it is what the files hold, in 8 bits beside its scales.

    ULPs are steps between neighbouring values of the dtype; where the dtypes differ both are
    rounded to the coarser (bfloat16 before float16 before float32) for them. They tell rounding
    apart, and nothing else: where some element is more than 128 steps off, or the tensor holds no
    floats, there are none.

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
        for name in sorted(first.keys() & second.keys())
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
    whole = vector_distance(distances)
    found = []
    for name in first.keys() | second.keys():
        a_side, b_side, distance = first.get(name), second.get(name), by_name.get(name)
        status = _status(a_side, b_side, distance, tolerance_ulp, ignore_dtype)
        own = vector_distance([distance])
        share = None
        if own and whole:
            # Where nothing differs, no tensor has a part in it.
            share = own.squared_difference / (whole.squared_difference or 1.0)
        found.append(TensorDiff(name, status, a_side, b_side, distance, share))
    found.sort(key=lambda tensor: (tensor.badness, tensor.tensor))
    return Diff(tuple(found), total, tolerance_ulp)


def _in_words(whole: VectorDistance) -> str:
    cosine = whole.cosine
    angle = "no cosine, one side being all zeros" if cosine is None else f"cosine {cosine:.6f}"
    return f"relative L2 {l2_text(whole)}, {angle}"


def _stored(path: Path) -> Checkpoint:
    if not path.exists():
        raise MissingInputError(
            f"`{path}` does not exist", "give the folder of a checkpoint, or its file"
        )
    if path.suffix.lower() in (".yml", ".yaml"):
        raise InputError(
            f"`{path}` is a YAML file, and no model",
            f"`mergeplan merge {path} OUT_DIR` makes the model of a merge's config;"
            f" `mergeplan verify DIR --config {path}` asks whether DIR is that model",
        )
    checkpoint = open_stored(str(path), shard_too=True)
    if checkpoint.made:
        raise InputError(
            f"`{path}` is an adapter, not a whole model",
            "merge it with its base by `merge_method: passthrough`, and compare the output; or ask"
            f" whether a folder is that merge: `mergeplan verify DIR --adapter {path} --base BASE`",
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
