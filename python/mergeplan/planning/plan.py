"""A plan with what was found out while it was made: the inputs, the donor, what to write beside."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mergeplan.checkpoints.checkpoint import Checkpoint, with_sources
from mergeplan.checkpoints.head_names import heads_in
from mergeplan.checkpoints.heads import ties_by
from mergeplan.checkpoints.plan_models import Derived, TensorRef
from mergeplan.planning.document import Input, Job, Plan
from mergeplan.planning.lowering import ResolvedTensor

if TYPE_CHECKING:
    from mergeplan._native import Headers


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
        data: What the core reads.
        checkpoints: The inputs, in the order of the config.
        donor: Whose config and tokenizer the output gets.
        model_config: The output's config.json, but for dtype and tying; empty where there is none.
        out_dtype: Torch name of the output's floating-point tensors, by elements the most common.
        unties_head: Whether the output has a head of its own while some input ties it.
        left_out: Tensors of some model that the output has not, each with the reason.
        companions: `None` where they are the donor's.
        fallback: `None` where the core computes everything.
        resolved: The tensors that the core merges, with the value of every option, where the
            options of the plan ask for it.
    """

    data: Plan
    checkpoints: tuple[Checkpoint, ...]
    donor: Checkpoint
    model_config: dict[str, Any]
    out_dtype: str
    unties_head: bool
    warnings: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    companions: Companions | None = None
    fallback: Fallback | None = field(default=None, compare=False)
    resolved: tuple[ResolvedTensor, ...] = ()

    def json(self) -> str:
        """Canonical text: the same plan gives the same bytes."""
        return self.data.json()

    @property
    def has_own_head(self) -> bool:
        """Whether the output has a head that is not tied to its embedding."""
        heads = heads_in(job.tensor for job in self.data.jobs)
        return bool(heads) and (self.unties_head or not ties_by(self.model_config, heads))

    @property
    def stored(self) -> list[Checkpoint]:
        """The checkpoints that are read, in the order of the plan's models."""
        return [model for model in with_sources(self.checkpoints) if not model.made]

    @property
    def headers(self) -> list["Headers"]:
        """Of the models, as far as the core has read them."""
        return [model.headers for model in self.stored if model.headers is not None]

    @property
    def input_paths(self) -> list[Path]:
        """Every folder and file that is read, and that no output may lie in."""
        folders = [model.path for model in self.stored if model.whole_folder]
        return [*folders, *(file for model in self.stored for file in model.files)]

    def input_dtypes(self, job: Job) -> set[str]:
        """safetensors' names of the dtypes that go into a job of the core; empty for others."""
        return set().union(*map(self._dtypes, job.merge.references))

    def _dtypes(self, reference: TensorRef | Input) -> set[str]:
        if reference.model < len(self.checkpoints):
            return {self.checkpoints[reference.model].tensors[reference.tensor].dtype}
        model = self.data.models[reference.model]
        if not isinstance(model, Derived):
            return {with_sources(self.checkpoints)[reference.model].tensors[reference.tensor].dtype}
        return set().union(*map(self._dtypes, model.derived[reference.tensor].references))
