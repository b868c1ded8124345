"""Methods of the user's own in mergekit's registry, so that mergekit plans merges by them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mergekit.merge_methods import BatchOptions, MergeMethod, TensorGroup, registry
from mergekit.merge_methods.base import (
    MISSING,
    BasePolicy,
    InputContract,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
)

from mergeplan.config.methods import KNOWN, Method, Option

# What merges a group: method, group, values of its options, dtype and output's dtype.
MergeGroup = Callable[
    [str, TensorGroup, dict[str, Any], torch.dtype | None, torch.dtype | None], torch.Tensor
]
_POLICIES = {
    "required": BasePolicy.REQUIRED,
    "optional": BasePolicy.OPTIONAL,
    "none": BasePolicy.IGNORED,
}


class OwnMethod(MergeMethod):  # type: ignore[misc]  # mergekit has no types
    """What mergekit takes for a method of its own.

    Args:
        merge_group: `None` where mergekit only plans.
    """

    def __init__(self, method: Method, merge_group: MergeGroup | None) -> None:
        self.spec = _spec_of(method)
        self._merge_group = merge_group

    def _execute(
        self,
        groups: Sequence[TensorGroup],
        parameters: list[dict[str, Any]],
        options: BatchOptions,
        *,
        input_dtypes: Sequence[torch.dtype | None],
        out_dtype: torch.dtype | None = None,
    ) -> tuple[torch.Tensor, ...]:
        merge = self._merge_group
        if merge is None:
            raise NotImplementedError(f"{self.spec.name} is merged by mergeplan")
        return tuple(
            merge(self.spec.name, group, values, dtype, out_dtype or dtype)
            for group, values, dtype in zip(groups, parameters, input_dtypes, strict=True)
        )


def register_own(merge_group: MergeGroup | None = None) -> None:
    """Make the user's own methods known to mergekit by their names, and no others of ours."""
    for name, method in list(registry._METHODS.items()):
        if isinstance(method, OwnMethod):
            del registry._METHODS[name]
    for method in KNOWN.values():
        if method.code is not None:
            registry._METHODS[method.name] = OwnMethod(method, merge_group)


def _spec_of(method: Method) -> MergeMethodSpec:
    has_base = method.base != "none"
    least, most = method.min_inputs, method.max_inputs
    counts = {"min_non_base": least, "max_non_base": most} if has_base else {}
    contract = InputContract(
        base=_POLICIES[method.base],
        min_inputs=1 if has_base else least,
        max_inputs=None if has_base else most,
        **counts,
    )
    each = ParameterScope.NON_BASE if has_base else ParameterScope.INPUT
    parameters = [
        _parameter(name, option, each if option.per_input else ParameterScope.SHARED)
        for name, option in method.options.items()
    ]
    return MergeMethodSpec(
        name=method.name, parameters=parameters, contract=contract, pretty_name=method.title
    )


def _parameter(name: str, option: Option, scope: ParameterScope) -> ParameterSpec:
    default = MISSING if option.required else option.default
    return ParameterSpec(name=name, value_type=option.kind, scope=scope, default=default)
