"""Faults of mergekit 0.1.5 that stop merges, or let chance into them, mended from outside."""

import contextlib
from collections.abc import Iterator
from typing import Any

from mergekit.architecture import ModelArchitecture, WeightInfo
from mergekit.plan import MergePlanner
from transformers import PreTrainedTokenizerFast


def with_whole_prefixes(architecture: ModelArchitecture) -> ModelArchitecture:
    """An architecture whose prefixes end in a dot: Whisper's is `model.decoder`, and with it
    mergekit looks for `model.decoderembed_tokens.weight`."""
    modules = {
        name: module.model_copy(update={"weight_prefix": module.weight_prefix.rstrip(".") + "."})
        if module.weight_prefix
        else module
        for name, module in architecture.modules.items()
    }
    return architecture.model_copy(update={"modules": modules})


class _Aliases(tuple[str, ...]):
    """Names that can be added to a list, which mergekit does with tuples."""

    def __radd__(self, other: list[str]) -> list[str]:
        return [*other, *self]


class Planner(MergePlanner):  # type: ignore[misc]
    """Plans optional weights that have aliases too, as those of BERT have."""

    def plan_tensor(
        self, weight: WeightInfo, weights_in: list[WeightInfo], *rest: Any, **named: Any
    ) -> None:
        """As mergekit does."""
        mended = [
            w.model_copy(update={"aliases": _Aliases(w.aliases)}) if w.aliases else w
            for w in weights_in
        ]
        super().plan_tensor(weight, mended, *rest, **named)


@contextlib.contextmanager
def ordered_vocabularies() -> Iterator[None]:
    """Let vocabularies come in the order of their numbers: `tokenizers` gives them in the order of
    a hash table, and mergekit numbers the tokens of a union as they come."""
    owner = next(c for c in PreTrainedTokenizerFast.__mro__ if "get_vocab" in vars(c))
    unordered = owner.get_vocab

    def get_vocab(self: Any) -> dict[str, int]:
        return dict(sorted(unordered(self).items(), key=lambda entry: entry[1]))

    owner.get_vocab = get_vocab
    try:
        yield
    finally:
        owner.get_vocab = unordered
