"""Merges that were checked, and can begin: data only."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mergeplan.config.config import MergeConfig
from mergeplan.merging.replacing import Seen
from mergeplan.merging.state import MergeState
from mergeplan.planning.plan import MergePlan

if TYPE_CHECKING:
    from mergeplan._native import PreparedFamily, PreparedMerge


@dataclass(frozen=True)
class CheckedMerge:
    """A merge that can begin: its inputs fit, and its output has a place and room.

    Attributes:
        out: Resolved folder.
        prepared: The Rust core's view, with all inputs open.
        state: What makes this merge this merge; see `state.MergeState`.
        copied: Names of the donor's files that go into it as they are.
        before: What `out` holds, and may lose.
    """

    config: MergeConfig
    plan: MergePlan
    out: Path
    prepared: "PreparedMerge"
    state: MergeState
    copied: tuple[str, ...]
    before: Seen
    warnings: tuple[str, ...]

    @property
    def written(self) -> set[str]:
        """Names of the files that are this merge's, beside those that every merge writes."""
        made = self.plan.companions.files if self.plan.companions else ()
        return {*self.copied, *made, *(name for name, _, _ in self.prepared.files)}


@dataclass(frozen=True)
class CheckedMerges:
    """Merges that can begin together.

    Attributes:
        family: The Rust core's view of all of them.
        memory_limit: Bytes of anonymous memory for the whole process.
        core_memory: The core's share of them.
        least_memory: Bytes for the whole process below which they would be refused.
        work_bytes: Input bytes that the passes are expected to go over.
        needed: Bytes that are still to be written, by the folder whose disk takes them.
    """

    merges: tuple[CheckedMerge, ...]
    family: "PreparedFamily"
    threads: int
    memory_limit: int
    core_memory: int
    least_memory: int
    work_bytes: int
    needed: dict[Path, int]
