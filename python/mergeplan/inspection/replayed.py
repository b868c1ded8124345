"""What a replay of a merge found: a verdict, and each tensor, the worst first."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mergeplan.checkpoints.dtypes import TORCH_NAMES
from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import counted, printable

Status = Literal[
    "missing",
    "extra",
    "shape",
    "dtype",
    "unknown",
    "not applied",
    "strength",
    "could not tell",
    "threshold",
    "rounding",
    "equal",
]
# Worst first.
ORDER: tuple[Status, ...] = get_args(Status)
VERIFIED = frozenset({"equal", "rounding", "threshold"})
_WORDS: dict[Status, str] = {
    "missing": "missing in the checkpoint",
    "extra": "that the merge has not",
    "shape": "of another shape",
    "dtype": "of a dtype that cannot be compared",
    "strength": "at another strength",
    "could not tell": "of which one cannot tell",
    "threshold": "equal but for ties at a threshold",
    "rounding": "equal up to rounding",
}
_HEAD = ("tensor", "status", "differing", "ULPs", "relative L2", "cosine", "factor")
_MOST_ROWS = 40


@dataclass(frozen=True)
class ReplayedTensor:
    """One tensor of the merge, or of the checkpoint.

    Attributes:
        found: What the checkpoint calls it; `None` where it is not there.
        differing: Elements that are not those of the replay; `None` where none were compared, as
            all below.
        ulps: Steps from the replay, at most, of `ulp_dtype` (torch's name), at the largest of the
            value, the base's and the tensor's typical change; of another strength, steps from that.
        factor: What fits best between the base (0) and the merge (1).
        relative_l2: Norm of the difference over that of the replay.
        cosine: Between what both change of the base, or between both where there is none.
        changes: Whether the merge changes this tensor of the base, as far as that was looked at.
        detail: Whatever else there is to say.
    """

    tensor: str
    status: Status
    found: str | None = None
    elements: int = 0
    differing: int | None = None
    ulps: float | None = None
    ulp_dtype: str | None = None
    factor: float | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    changes: bool = True
    detail: str = ""

    @property
    def badness(self) -> tuple[Any, ...]:
        """Sorts the worst first."""
        return (ORDER.index(self.status), -(self.relative_l2 or 0), self.tensor)


@dataclass(frozen=True, repr=False)
class Replay(Summarized):
    """A checkpoint beside the merge that it is said to be.

    Attributes:
        tensors: The worst first.
        notes: What they have in common.
        warnings: Of the merge's plan.
        changes_nothing: Whether the merge is an adapter, or has a base, and leaves all of it as it
            is: then equal tensors do not tell whether it was applied.
    """

    out: Path
    tensors: tuple[ReplayedTensor, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    changes_nothing: bool = False

    @property
    def answer(self) -> str:
        """`verified`, `not verified`, or `could not tell`."""
        left = {one.status for one in self.tensors} - VERIFIED
        if not left:
            told = bool(self.tensors) and not self.changes_nothing
            return "verified" if told else "could not tell"
        return "could not tell" if left == {"could not tell"} else "not verified"

    @property
    def verified(self) -> bool:
        """Whether it is that merge, up to rounding."""
        return self.answer == "verified"

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each status, the worst first."""
        each = [one.status for one in self.tensors]
        return {status: each.count(status) for status in ORDER if status in each}

    def verdict(self) -> str:
        """One line."""
        counts = self.counts
        words = [f"{counts.get('equal', 0)} of {counted(len(self.tensors), 'tensors')} equal"]
        for status in reversed(ORDER[:-1]):
            if status in counts:
                words.append(f"{counts[status]} {_WORDS.get(status, status)}{self._most(status)}")
        return f"{self.answer}: {', '.join(words)}"

    def _most(self, status: Status) -> str:
        if status != "rounding":
            return ""
        worst = max((t for t in self.tensors if t.status == status), key=lambda t: t.ulps or 0)
        return f" (at most {worst.ulps or 0:.3g} ULP of {worst.ulp_dtype})"

    def summary(self) -> str:
        """The verdict, notes, and a row for each tensor that is not equal."""
        return "\n".join([self.verdict(), *self.notes, *self.rows(most=None)])

    def rows(self, *, every: bool = False, most: int | None = _MOST_ROWS) -> list[str]:
        """A table of what is not equal.

        Args:
            every: Equal ones too.
            most: Rows, at most; `None` for all.
        """
        shown = [one for one in self.tensors if every or one.status != "equal"]
        if not shown:
            return []
        cut = shown[:most]
        cells = [_row(one) for one in cut]
        head = (*_HEAD, "note" if any(row[-1] for row in cells) else "")
        lines = align_columns([head, *cells], left=2)
        if len(cut) < len(shown):
            lines.append(f"… {len(shown) - len(cut)} more: --all or --json lists them")
        return [line.rstrip() for line in lines]

    def records(self) -> list[dict[str, Any]]:
        """A row for each tensor, the worst first."""
        return [asdict(one) for one in self.tensors]

    def data(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "verified": self.verified,
            "answer": self.answer,
            "out": str(self.out),
            "counts": self.counts,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "tensors": self.records(),
        }


def _row(one: ReplayedTensor) -> tuple[str, ...]:
    detail = [one.detail] if one.detail else []
    if one.found not in (None, one.tensor):
        detail.append(f"there `{one.found}`")
    share = None if one.differing is None else f"{100 * one.differing / max(one.elements, 1):.3g} %"
    numbers = ["-" if n is None else f"{n:.3g}" for n in (one.ulps, one.relative_l2, one.cosine)]
    numbers.append("-" if one.factor is None else f"{one.factor:.4g}")
    words = printable("; ".join(detail))
    return (printable(one.tensor), one.status, share or "-", *numbers, words)


def torch_name(dtype: str | None) -> str | None:
    """Torch's name of a dtype, by safetensors'."""
    return None if dtype is None else TORCH_NAMES.get(dtype, dtype)
