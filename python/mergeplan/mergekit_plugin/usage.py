"""Who merged how many tensors."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Usage:
    """Who merged how many tensors since `register`.

    Attributes:
        native: Merged by mergeplan's core.
        original: Left to mergekit's own method, by reason.
    """

    native: int = 0
    original: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """One line for people."""
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.original.items())
        left = self.original.total()
        return (
            f"tensors merged by mergeplan's kernels: {self.native}, by mergekit's own: {left}"
            + (f" ({reasons})" if reasons else "")
        )
