"""What weights are tuned for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError, nearest
from mergeplan.evaluation.scores import Estimate, Scores, difference
from mergeplan.measurements.rows import MACRO, parse_shares
from mergeplan.selection.problem import Constraint

Array = NDArray[np.float64]


# What a bound that is broken costs, as against the value: more than any slope of it.
BROKEN = 10.0
WORST = "the worst domain"


@dataclass(frozen=True)
class Aim:
    """A mean of domains, or the worst of them, below bounds on others.

    Attributes:
        shares: Of the domains, summing to 1.
        worst: Whether the largest of their losses counts instead of the mean.
        keep: Bounds on the loss of domains, by their names.
        some: Whether the pool has other domains too.
    """

    shares: dict[str, float]
    worst: bool = False
    keep: tuple[Constraint, ...] = ()
    some: bool = False

    @classmethod
    def of(
        cls,
        domains: Collection[str],
        given: str | None = None,
        *,
        worst: bool = False,
        keep: Sequence[Constraint] = (),
    ) -> "Aim":
        """From what a user names.

        Raises:
            InputError: There is no such domain, a bound is no upper one, or the worst domain is
                to have shares.
        """
        wanted = parse_shares(given) if given else {MACRO: 1.0}
        if set(wanted) == {MACRO}:
            wanted = dict.fromkeys(domains, 1.0)
        for name in (*wanted, *(one.name for one in keep)):
            if name not in domains:
                known = list(domains)
                hint = nearest(name, known) or f"it has: {', '.join(known)}"
                raise InputError(f"the pool has no domain `{name}`", hint)
        for one in keep:
            if not one.below:
                raise InputError(f"`{one}`: a loss can be kept below a bound alone")
        if worst and len(set(wanted.values())) > 1:
            raise InputError(
                "shares count in a mean, and not for the worst domain",
                f"name the domains alone, {','.join(wanted)}, or leave out `worst`",
            )
        total = sum(wanted.values())
        shares = {name: share / total for name, share in wanted.items()}
        return cls(shares, worst, tuple(keep), some=len(wanted) < len(domains))

    @property
    def name(self) -> str:
        """For people."""
        if self.worst:
            return WORST
        if len(set(self.shares.values())) == 1:
            names = len(self.shares) < 3 or self.some
            return " and ".join(self.shares) if names else "the mean of the domains"
        return ", ".join(f"{name}={share:.3g}" for name, share in self.shares.items())

    def value(self, losses: Mapping[str, float]) -> float:
        """What is to be small."""
        if self.worst:
            return max(losses[name] for name in self.shares)
        return sum(share * losses[name] for name, share in self.shares.items())

    def mean(self, by_domain: Mapping[str, float]) -> float:
        """Of what is linear in the losses; of the mean, where the worst domain counts."""
        return sum(share * by_domain[name] for name, share in self.shares.items())

    def excess(self, losses: Mapping[str, float]) -> float:
        """By how much bounds are broken, in all."""
        return sum(max(losses[one.name] - one.limit, 0.0) for one in self.keep)

    def said(self, losses: Mapping[str, float]) -> str:
        """The value for people, and whether bounds are broken."""
        excess = self.excess(losses)
        return f"{self.value(losses):.4f}" + (f" (bounds broken by {excess:.4f})" if excess else "")

    def broken(self, losses: Mapping[str, float]) -> tuple[str, ...]:
        """A sentence for each bound that does not hold on the reporting half."""
        return tuple(
            f"`{one.name}` has a loss of {losses[one.name]:.4f} on documents that had no part in"
            f" tuning: `--keep {one}` does not hold there"
            for one in self.keep
            if losses[one.name] > one.limit
        )

    def merit(self, losses: Mapping[str, float]) -> float:
        """The value, and what broken bounds cost."""
        return self.value(losses) + BROKEN * self.excess(losses)

    def gain(self, before: Scores, after: Scores) -> Estimate:
        """By how much `after` is better, with its paired error; of the worst domain, in the one
        that is the worst before."""
        return difference(before, after).mean(self.counted(before))

    def counted(self, scores: Scores) -> dict[str, float]:
        """The shares of the domains in the value of some scores."""
        if not self.worst:
            return self.shares
        losses = scores.losses()
        return {max(self.shares, key=losses.__getitem__): 1.0}
