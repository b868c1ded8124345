"""How far are two checkpoints apart, tensor by tensor?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergeplan.checkpoints.adapters.folder import is_adapter
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.checkpoints.names import parts_of
from mergeplan.checkpoints.opening import open_stored
from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted
from mergeplan.errors import InputError, MissingInputError
from mergeplan.inspection.tensor_diff import Side, Status, TensorDiff, diff_rows, l2_text
from mergeplan.inspection.vectors import UNMATCHED, VectorDistance, vector_distance
from mergeplan.planning.document import to_json
from mergeplan.system.files import expanded
from mergeplan.system.machine import worker_threads
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
            said = f"equal{within}: {counted(total, 'tensors')}{self._rounded()}"
        else:
            tensors = counted(total, "tensors")
            said = f"{differing} of {tensors} differ, {total - differing} equal{within}"
            said += self._rounded() + self._steps()
        by_value = any(t.distance and t.distance.finite is not None for t in self.tensors)
        if not by_value or not (differing or self._rounded()):
            return said
        return f"{said}\nin all{self._taken_of()}: {_in_words(self.whole)}{self._left_out()}"

    def _rounded(self) -> str:
        """Which tensors count as equal though their values are not the same."""
        some = [t.distance for t in self.tensors if t.status == "equal" and t.rounds and t.distance]
        dtypes = sorted({str(one.ulp_dtype) for one in some})
        return f", {len(some)} of them once rounded to {' or '.join(dtypes)}" if some else ""

    def _steps(self) -> str:
        """The most ULPs, where they tell of every tensor whose values differ."""
        found = [t.max_ulp for t in self.differing if t.distance and t.distance.finite is not None]
        steps = [count for count in found if count is not None]
        return f"; at most {max(steps)} ULP apart" if steps and len(steps) == len(found) else ""

    def _taken_of(self) -> str:
        """Over what the numbers of the whole are, where that is not everything."""
        some = [t.distance for t in self.tensors if t.distance and t.distance.finite is not None]
        elements, finite = sum(one.elements for one in some), sum(one.finite or 0 for one in some)
        if finite in (0, elements):
            return ""
        return f", over the {finite} of {elements} elements that are finite on both sides"

    def _left_out(self) -> str:
        """What the numbers of the whole do not speak of."""
        tensors = sum(not t.distance or t.distance.finite is None for t in self.differing)
        return f"; left out: {counted(tensors, 'tensors')} not compared by value" * bool(tensors)

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
        unmatched = any(one.distance and one.distance.unmatched for one in self.tensors)
        return {
            "equal": not self.differing,
            "tolerance_ulp": self.tolerance_ulp,
            "differing": len(self.differing),
            "whole": self.whole and self.whole.data() | (UNMATCHED if unmatched else {}),
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
    differs, whatever the tolerance, and then there is no relative L2 and no cosine in `data()` and
    `records()`. Other dtypes are compared by their bytes alone. Of a quantised
    model it is what the files hold, in 8 bits beside its scales.

    ULPs are steps between neighbouring values of the dtype; where the dtypes differ both are
    rounded to the coarser (bfloat16 before float16 before float32) for them. They tell rounding
    apart, and nothing else: where some element is more than 128 steps off, or the tensor holds no
    floats, there are none.

    Args:
        a, b: Folders of checkpoints, or files.
        tolerance_ulp: A tensor counts as equal where no element is farther off than this, and NaN
            and infinity stand at the same places.
        ignore_dtype: Tensors of different dtypes are equal where both are the same once rounded to
            the coarser dtype, so that a checkpoint equals its own in bfloat16.
        threads: Worker threads; `None` for one a usable core.
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
            threads=threads or worker_threads(),
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


def _in_words(whole: VectorDistance | None) -> str:
    if whole is None:
        return "no relative L2 and no cosine, nothing being finite on both sides"
    if not (whole.squared_a or whole.squared_b):
        return "relative L2 0, no cosine, both sides being all zeros"
    if not whole.squared_a:
        return "no relative L2 and no cosine, A being all zeros"
    if whole.cosine is None:
        return f"relative L2 {l2_text(whole)}, no cosine, B being all zeros"
    return f"relative L2 {l2_text(whole)}, cosine {whole.cosine:.6f}"


def _stored(path: Path) -> Checkpoint:
    parts = parts_of(str(path))
    if is_adapter(path) or (len(parts) == 2 and all(Path(part).exists() for part in parts)):
        raise _adapter(path)
    if not path.exists():
        raise MissingInputError(
            f"`{path}` does not exist", "give the folder of a checkpoint, or its file"
        )
    if not (path.is_file() or path.is_dir()):
        raise InputError(
            f"`{path}` is neither a folder nor a regular file",
            "both are read more than once, and so cannot be pipes; give a folder or a file",
        )
    if path.suffix.lower() in (".yml", ".yaml"):
        raise InputError(
            f"`{path}` is a YAML file, and no model",
            f"`mergeplan merge {path} OUT_DIR` makes the model of a merge's config;"
            f" `mergeplan verify DIR --config {path}` asks whether DIR is that model",
        )
    return open_stored(str(path), shard_too=True)


def _adapter(path: Path) -> InputError:
    *base, adapter = parts_of(str(path))
    kind = "a model with an adapter" if base else "an adapter"
    return InputError(
        f"`{path}` is {kind}, not a whole model in files of its own",
        "merge it with its base by `merge_method: passthrough`, and compare the output; or ask"
        f" whether a folder is that merge: `mergeplan verify DIR --adapter {adapter} --base"
        f" {base[0] if base else 'BASE'}`",
    )


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
