"""The merge methods and their options: names, defaults and scopes as in mergekit 0.1.5.

Help, validation and planning read them from here; nothing else states a default.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from mergeplan.errors import InputError

BasePolicy = Literal["required", "optional", "none"]
Family = Literal["linear", "delta", "group", "passthrough", "custom"]
Sparsify = Literal["none", "magnitude", "random", "outliers", "ranks"]


@dataclass(frozen=True)
class Option:
    """A method setting.

    Attributes:
        kind: Type of its value.
        default: Value where the config gives none; `None` where there is no default.
        per_input: Whether each model has its own; otherwise it belongs to the whole merge.
        minimum, maximum: Bounds, inclusive.
        may_be_unset: Whether a merge without it has a meaning of its own.
    """

    kind: type[bool] | type[int] | type[float]
    default: bool | float | None
    per_input: bool = False
    minimum: float | None = None
    maximum: float | None = None
    may_be_unset: bool = False

    @property
    def required(self) -> bool:
        """Whether the config must give it."""
        return self.default is None and not self.may_be_unset


@dataclass(frozen=True)
class Code:
    """Where a method of the user's own comes from, and what it asks of the core; see `custom`.

    Attributes:
        file: Where its source is, or was.
        source: The file's bytes, as they were run.
        by_rows: Whether it gets whole rows along the last dimension.
        statistics: What it is told of each model's whole tensor.
        has_states: Whether it makes a state of each model's tensor.
    """

    file: Path
    source: bytes = field(repr=False)
    by_rows: bool = False
    statistics: tuple[str, ...] = ()
    has_states: bool = False

    @cached_property
    def sha256(self) -> str:
        """Of the file. The plan asks for it with each tensor."""
        return hashlib.sha256(self.source).hexdigest()


@dataclass(frozen=True)
class Method:
    """A merge method as mergekit names it, or one of the user's own.

    Attributes:
        family: Which kind of job it is in the plan.
        base: Whether `base_model` is what the others are compared with: always, where it is given,
            or never (then a `base_model` is one of the inputs, and gives config and tokenizer).
        min_inputs, max_inputs: How many models it takes, the base of the comparison not counted.
        sparsify: How a delta is thinned to its density.
        consensus: Whether a sign is elected for each element, as in TIES.
        code: Of a method of the user's own.
    """

    name: str
    title: str
    reference_url: str | None
    options: MappingProxyType[str, Option]
    family: Family = "group"
    base: BasePolicy = "required"
    min_inputs: int = 0
    max_inputs: int | None = None
    sparsify: Sparsify = "none"
    consensus: bool = False
    code: Code | None = None

    def __reduce__(self) -> tuple[Callable[[str], "Method"], tuple[str]]:
        """There is one of each name; `custom` sends the user's own."""
        return _named, (self.name,)


def _named(name: str) -> Method:
    return KNOWN[name]


def check_epsilon(where: str, density: float, epsilon: float) -> None:
    """DELLA keeps elements with probabilities from density - epsilon to density + epsilon; at a
    density of 0 or 1 there is nothing to draw.

    Args:
        where: Whose options they are, for messages.

    Raises:
        InputError: A probability would lie outside (0, 1).
    """
    if not 0 < density < 1 or (density - epsilon > 0 and density + epsilon < 1):
        return
    raise InputError(
        f"{where}: expected `density` - `epsilon` and `density` + `epsilon` between 0 and 1, found"
        f" density {density:g} and epsilon {epsilon:g}",
        f"take an `epsilon` below {min(density, 1 - density):g}, or a density of 0 or 1",
    )


WEIGHT = Option(float, None, per_input=True)
DENSITY = Option(float, 1.0, per_input=True, minimum=0.0, maximum=1.0)
GAMMA = Option(float, 0.01, per_input=True, minimum=0.0, maximum=1.0)
# See `check_epsilon`.
EPSILON = Option(float, 0.15, per_input=True, minimum=0.0, maximum=0.5)
# Narrows a temporary of mergekit's; the result does not depend on it.
INT8_MASK = Option(bool, False)
SIGNIFICANT = Option(float, 1e-5, minimum=0.0)

LINEAR_PAPER = "https://arxiv.org/abs/2203.05482"
TASK_ARITHMETIC_PAPER = "https://arxiv.org/abs/2212.04089"
TIES_PAPER = "https://arxiv.org/abs/2306.01708"
DARE_PAPER = "https://arxiv.org/abs/2311.03099"
BREADCRUMBS_PAPER = "https://arxiv.org/abs/2312.06795"
DELLA_PAPER = "https://arxiv.org/abs/2406.11617"
RAM_PAPER = "https://arxiv.org/abs/2601.13572"


def _delta_method(
    name: str,
    title: str,
    url: str,
    *,
    normalize: bool = False,
    rescale: bool = False,
    sparsify: Sparsify = "none",
    consensus: bool = False,
) -> Method:
    own = {"outliers": {"gamma": GAMMA}, "ranks": {"epsilon": EPSILON}}
    options = {
        "weight": WEIGHT,
        "density": DENSITY,
        **own.get(sparsify, {}),
        "normalize": Option(bool, normalize),
        "rescale": Option(bool, rescale),
        "lambda": Option(float, 1.0),
        "int8_mask": INT8_MASK,
    }
    return Method(
        name,
        title,
        url,
        MappingProxyType(options),
        family="delta",
        sparsify=sparsify,
        consensus=consensus,
    )


def _group_method(
    name: str,
    title: str,
    url: str | None,
    inputs: tuple[int, int | None],
    base: BasePolicy = "required",
    **options: Option,
) -> Method:
    least, most = inputs
    options_view = MappingProxyType(options)
    return Method(name, title, url, options_view, base=base, min_inputs=least, max_inputs=most)


ALL = (
    Method(
        "linear",
        "Linear",
        LINEAR_PAPER,
        MappingProxyType({"weight": WEIGHT, "normalize": Option(bool, True)}),
        family="linear",
        base="none",
        min_inputs=1,
    ),
    _delta_method("task_arithmetic", "Task Arithmetic", TASK_ARITHMETIC_PAPER),
    _delta_method("ties", "TIES", TIES_PAPER, normalize=True, sparsify="magnitude", consensus=True),
    _delta_method(
        "dare_ties", "DARE TIES", DARE_PAPER, rescale=True, sparsify="random", consensus=True
    ),
    _delta_method("dare_linear", "Linear DARE", DARE_PAPER, rescale=True, sparsify="random"),
    _delta_method("breadcrumbs", "Model Breadcrumbs", BREADCRUMBS_PAPER, sparsify="outliers"),
    _delta_method(
        "breadcrumbs_ties",
        "Model Breadcrumbs with TIES",
        BREADCRUMBS_PAPER,
        sparsify="outliers",
        consensus=True,
    ),
    _delta_method(
        "della",
        "DELLA",
        DELLA_PAPER,
        normalize=True,
        rescale=True,
        sparsify="ranks",
        consensus=True,
    ),
    _delta_method("della_linear", "Linear DELLA", DELLA_PAPER, rescale=True, sparsify="ranks"),
    _group_method(
        "slerp",
        "SLERP",
        "https://en.wikipedia.org/wiki/Slerp",
        (1, 1),
        t=Option(float, None),
    ),
    _group_method(
        "nuslerp",
        "NuSLERP",
        None,
        (2, 2),
        base="optional",
        weight=WEIGHT,
        nuslerp_row_wise=Option(bool, False),
        nuslerp_flatten=Option(bool, True),
    ),
    _group_method(
        "multislerp",
        "Multi-SLERP",
        "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
        (1, None),
        base="optional",
        weight=WEIGHT,
        normalize_weights=Option(bool, True),
        eps=Option(float, 1e-8, minimum=0.0),
    ),
    _group_method(
        "model_stock",
        "Model Stock",
        "https://arxiv.org/abs/2403.19522",
        (2, None),
        filter_wise=Option(bool, False),
    ),
    _group_method(
        "sce",
        "SCE",
        "https://arxiv.org/abs/2408.07990",
        (0, None),
        select_topk=Option(float, 1.0, minimum=0.0, maximum=1.0),
        int8_mask=INT8_MASK,
    ),
    _group_method(
        "karcher",
        "Karcher Mean",
        "https://arxiv.org/abs/2603.04972",
        (1, None),
        base="none",
        max_iter=Option(int, 10, minimum=0),
        tol=Option(float, 1e-5, minimum=0.0),
    ),
    _group_method(
        "nearswap",
        "NearSwap",
        "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        (1, 1),
        t=Option(float, None, minimum=0.0),
    ),
    _group_method("arcee_fusion", "Arcee Fusion", "https://arcee.ai", (1, 1)),
    _group_method("ram", "Reinforced Agent Merging", RAM_PAPER, (0, None), epsilon=SIGNIFICANT),
    _group_method(
        "ramplus_tl",
        "Reinforced Agent Merging Plus (Tensor-Local)",
        RAM_PAPER,
        (0, None),
        r=Option(float, 0.1),
        alpha=Option(float, 0.2, minimum=0.0),
        epsilon=SIGNIFICANT,
    ),
    Method(
        "passthrough",
        "Passthrough",
        None,
        MappingProxyType({"scale": Option(float, None, per_input=True, may_be_unset=True)}),
        family="passthrough",
        base="none",
        min_inputs=1,
        max_inputs=1,
    ),
)
METHODS = {method.name: method for method in ALL}
# With those of the user's own: `custom` adds to them.
KNOWN = dict(METHODS)
