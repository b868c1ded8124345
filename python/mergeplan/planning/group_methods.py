"""Methods that look at whole vectors of the inputs, as a plan has them.

The same names and fields as in the core (`rust/core/src/plan/group_method.rs`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Slerp:
    name: ClassVar = "slerp"

    t: float


@dataclass(frozen=True, slots=True)
class Nuslerp:
    """`along` is `tensor`, `last` or `first`."""

    name: ClassVar = "nuslerp"

    t: float
    along: str


@dataclass(frozen=True, slots=True)
class Multislerp:
    name: ClassVar = "multislerp"

    weights: tuple[float, ...]
    normalize: bool
    eps: float


@dataclass(frozen=True, slots=True)
class ModelStock:
    name: ClassVar = "model_stock"

    filter_wise: bool


@dataclass(frozen=True, slots=True)
class Sce:
    name: ClassVar = "sce"

    density: float


@dataclass(frozen=True, slots=True)
class Karcher:
    name: ClassVar = "karcher"

    max_iter: int
    tol: float


@dataclass(frozen=True, slots=True)
class Nearswap:
    name: ClassVar = "nearswap"

    t: float


@dataclass(frozen=True, slots=True)
class ArceeFusion:
    name: ClassVar = "arcee_fusion"


@dataclass(frozen=True, slots=True)
class Ram:
    name: ClassVar = "ram"

    epsilon: float


@dataclass(frozen=True, slots=True)
class RamplusTl:
    name: ClassVar = "ramplus_tl"

    r: float
    alpha: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Passthrough:
    name: ClassVar = "passthrough"

    scale: float | None


@dataclass(frozen=True, slots=True)
class Custom:
    """A method of the user's own.

    Attributes:
        sha256: Of its code.
        densities: For the statistic `threshold`; else none.
        options: `shared`, by name, and `each`, lists by name.
    """

    name: ClassVar = "custom"

    method: str
    sha256: str
    by_rows: bool
    has_states: bool
    statistics: tuple[str, ...]
    densities: tuple[float, ...]
    options: dict[str, dict[str, Any]]


GroupMethod = (
    Slerp
    | Nuslerp
    | Multislerp
    | ModelStock
    | Sce
    | Karcher
    | Nearswap
    | ArceeFusion
    | Ram
    | RamplusTl
    | Passthrough
    | Custom
)
