"""Documents of the choosing half: some give gradients, the others accept steps."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.evaluation.measured import WITH_SLOPES
from mergeplan.evaluation.scores import DomainScores
from mergeplan.evaluation.texts import Texts

# Groups of a domain that accept at least; as many have to give gradients.
FEWEST = 5
_SHARE = 3  # one in so many accepts

Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class TuneTexts:
    """The documents by what they are for."""

    gradient: Texts
    accepting: Texts
    reporting: Texts

    @property
    def point_tokens(self) -> int:
        """Forward passes of a point with its slopes, in tokens; a backward pass counts two."""
        return WITH_SLOPES * self.gradient.n_tokens + self.accepting.n_tokens


def split(texts: Texts, seed: int) -> Masks:
    """Which documents of each domain accept steps; whole groups, in a seeded order.

    Raises:
        InputError: A domain has too few.
    """
    return {
        name: _accepting(
            name,
            DomainScores(one.lines, one.n_tokens, np.zeros(len(one.lines)), one.groups),
            seed,
        )
        for name, one in texts.domains.items()
    }


def others(masks: Mapping[str, NDArray[np.bool_]]) -> Masks:
    """The documents that give gradients."""
    return {name: ~mask for name, mask in masks.items()}


def _accepting(name: str, domain: DomainScores, seed: int) -> NDArray[np.bool_]:
    keys = domain.group_keys()
    order = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed} {key!r}".encode()).digest())
    if len(order) < 2 * FEWEST:
        raise InputError(
            f"domain `{name}`: {len(order)} documents or groups to tune on, {2 * FEWEST} are"
            f" needed: {FEWEST} for gradients and {FEWEST} to accept steps by",
            f"give it some {6 * FEWEST} documents or more, unlike each other, and let"
            " `--max-tokens` take them: about half of them, by a hash of their text, only report",
        )
    accepting = set(order[: max(FEWEST, len(order) // _SHARE)])
    return np.array([key in accepting for key in keys])
