"""The merge methods and their options: defaults and scopes as in mergekit 0.1.5.

Help, validation and planning read them from here; nothing else states a default.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Sparsify = Literal["none", "magnitude", "random"]


@dataclass(frozen=True)
class Option:
    """A method setting.

    Attributes:
        kind: Type of its value.
        default: Value where the config gives none; `None` where it must give one.
        per_input: Whether each model has its own; otherwise it belongs to the whole merge.
        minimum, maximum: Bounds, inclusive.
    """

    kind: type[bool] | type[float]
    default: bool | float | None
    per_input: bool = False
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Method:
    """A merge method as mergekit names it.

    Attributes:
        base_required: Whether it merges differences from a base.
        sparsify: How a delta is thinned to its density.
        consensus: Whether a sign is elected for each element, as in TIES.
    """

    name: str
    title: str
    reference_url: str
    options: MappingProxyType[str, Option]
    base_required: bool = True
    sparsify: Sparsify = "none"
    consensus: bool = False


WEIGHT = Option(float, None, per_input=True)
DENSITY = Option(float, 1.0, per_input=True, minimum=0.0, maximum=1.0)


def _delta_method(
    name: str,
    title: str,
    url: str,
    *,
    normalize: bool,
    rescale: bool,
    sparsify: Sparsify = "none",
    consensus: bool = False,
) -> Method:
    options = {
        "weight": WEIGHT,
        "density": DENSITY,
        "normalize": Option(bool, normalize),
        "rescale": Option(bool, rescale),
        "lambda": Option(float, 1.0),
        # Narrows a temporary of mergekit's; the result does not depend on it.
        "int8_mask": Option(bool, False),
    }
    return Method(
        name, title, url, MappingProxyType(options), sparsify=sparsify, consensus=consensus
    )


METHODS = {
    method.name: method
    for method in (
        Method(
            "linear",
            "Linear",
            "https://arxiv.org/abs/2203.05482",
            MappingProxyType({"weight": WEIGHT, "normalize": Option(bool, True)}),
            base_required=False,
        ),
        _delta_method(
            "task_arithmetic",
            "Task Arithmetic",
            "https://arxiv.org/abs/2212.04089",
            normalize=False,
            rescale=False,
        ),
        _delta_method(
            "ties",
            "TIES",
            "https://arxiv.org/abs/2306.01708",
            normalize=True,
            rescale=False,
            sparsify="magnitude",
            consensus=True,
        ),
        _delta_method(
            "dare_ties",
            "DARE TIES",
            "https://arxiv.org/abs/2311.03099",
            normalize=False,
            rescale=True,
            sparsify="random",
            consensus=True,
        ),
        _delta_method(
            "dare_linear",
            "Linear DARE",
            "https://arxiv.org/abs/2311.03099",
            normalize=False,
            rescale=True,
            sparsify="random",
        ),
    )
}
