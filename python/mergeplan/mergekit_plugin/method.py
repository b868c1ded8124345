"""A merge method of mergekit whose arithmetic the core does, where it can."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mergekit.merge_methods import BatchOptions, MergeMethod, TensorGroup

from mergeplan.errors import InputError
from mergeplan.mergekit_plugin.arithmetic import merge_group, why_not
from mergeplan.mergekit_plugin.usage import Usage

LOG = logging.getLogger(__name__)


class NativeMethod(MergeMethod):  # type: ignore[misc]  # mergekit has no types
    """Takes the place of a method in mergekit's registry.

    It steps in at `_execute`, behind mergekit's binding and validation, where inputs are still as
    they were loaded: what `dtype` asks for is cast block by block, and no tensor is copied.

    Args:
        original: What it replaces, and what does the tensors that the core cannot take.
        usage: Counts both.
    """

    def __init__(self, original: Any, usage: Usage) -> None:
        self.spec = original.spec
        self.supports_batching = original.supports_batching
        self.original = original
        self.usage = usage

    def _execute(
        self,
        groups: Sequence[TensorGroup],
        parameters: list[dict[str, Any]],
        options: BatchOptions,
        *,
        input_dtypes: Sequence[torch.dtype | None],
        out_dtype: torch.dtype | None = None,
    ) -> tuple[torch.Tensor, ...]:
        results: dict[int, torch.Tensor] = {}
        left = []
        for number, (group, values) in enumerate(zip(groups, parameters, strict=True)):
            merged = self._native(group, values, input_dtypes[number], out_dtype)
            if merged is None:
                left.append(number)
            else:
                results[number] = merged
        if left:
            # In one call, so that small tensors are batched as ever.
            merged_there = self.original._execute(
                [groups[number] for number in left],
                [parameters[number] for number in left],
                options,
                input_dtypes=[input_dtypes[number] for number in left],
                out_dtype=out_dtype,
            )
            results.update(zip(left, merged_there, strict=True))
        return tuple(results[number] for number in range(len(groups)))

    def _native(
        self,
        group: TensorGroup,
        values: dict[str, Any],
        dtype: torch.dtype | None,
        out_dtype: torch.dtype | None,
    ) -> torch.Tensor | None:
        """The merged tensor; `None` where mergekit has to do it."""
        name = self.spec.name
        reason = why_not(name, group, values, dtype, out_dtype)
        if reason is None:
            try:
                merged = merge_group(name, group, values, dtype, out_dtype or dtype)
            except InputError as error:
                # Values that are not finite, or do not fit the dtype: mergekit merges them all the
                # same, or has its own words for them.
                reason = "values that the core refuses"
                LOG.debug("%s", error)
            else:
                self.usage.native += 1
                return merged
        self.usage.original[reason] += 1
        LOG.info("%s is left to mergekit's own %s: %s", group.metadata.name, name, reason)
        return None
