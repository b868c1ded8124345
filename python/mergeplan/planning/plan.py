"""The plan, as data: one job for each output tensor, every option resolved."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mergeplan.checkpoints.checkpoint import Checkpoint, plan_models
from mergeplan.planning.lowering import ResolvedTensor

VERSION = 1

# A job in `MergePlan.data`; see `rust/core/src/plan`.
Job = dict[str, Any]


@dataclass(frozen=True)
class Companions:
    """What lies beside the weights and `config.json`, where it is not simply the donor's.

    Attributes:
        files: Further files by name.
        copies_tokenizer: Whether the donor's tokenizer is copied too.
    """

    files: dict[str, bytes]
    copies_tokenizer: bool


class Fallback(Protocol):
    """Who computes the tensors that the core cannot: those whose jobs are `given`.

    Attributes:
        tensors: Their names.
        n_bytes: Bytes of all of them.
        memory_bytes: Anonymous memory that computing one may take.
    """

    @property
    def tensors(self) -> list[str]: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    def element_bytes(self, name: str) -> int:
        """Bytes of an element of a tensor."""

    def compute(self, name: str) -> memoryview:
        """The bytes of a tensor, little-endian and row-major."""


@dataclass(frozen=True)
class MergePlan:
    """What Rust is asked to do, and what the files around the weights need to know.

    Attributes:
        data: The plan as JSON-ready data; see `rust/core/src/plan`.
        checkpoints: The inputs, in the order of the config.
        donor: Whose config and tokenizer the output gets.
        model_config: The output's config.json, but for dtype and tying; empty where there is none.
        out_dtype: Torch name of the output's floating-point tensors, by elements the most common.
        unties_head: Whether the output has a head of its own while some input ties it.
        companions: `None` where they are the donor's.
        fallback: `None` where the core computes everything.
        resolved: The tensors that the core merges, with the value of every option, where the
            options of the plan ask for it.
    """

    data: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    donor: Checkpoint
    model_config: dict[str, Any]
    out_dtype: str
    unties_head: bool
    warnings: tuple[str, ...]
    companions: Companions | None = None
    fallback: Fallback | None = field(default=None, compare=False)
    resolved: tuple[ResolvedTensor, ...] = ()

    def json(self) -> str:
        """Canonical text: the same plan gives the same bytes."""
        return canonical_json(self.data)

    @property
    def stored(self) -> list[Checkpoint]:
        """The checkpoints that are read, in the order of the plan's models."""
        return [model for model in plan_models(self.checkpoints) if not model.made]

    @property
    def input_paths(self) -> list[Path]:
        """Every folder and file that is read, and that no output may lie in."""
        return [path for model in self.stored for path in (model.path, *model.files)]

    def input_dtypes(self, job: dict[str, Any]) -> set[str]:
        """safetensors' names of the dtypes that go into a job of the core; empty for others."""
        merge = job["merge"]
        base = [merge["base"]] if merge.get("base") else []
        references = [*merge.get("inputs", []), *base]
        return set().union(*(self._dtypes(reference) for reference in references))

    def _dtypes(self, reference: dict[str, Any]) -> set[str]:
        number, name = reference["model"], reference["tensor"]
        if number < len(self.checkpoints):
            return {self.checkpoints[number].tensors[name].dtype}
        how = self.data["models"][number]["derived"][name]
        parts = how.get("tensors") or how.get("parts") or [how]
        return set().union(*map(self._dtypes, parts))


def canonical_json(data: dict[str, Any] | list[Any]) -> str:
    """JSON with one spelling for equal data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
