"""What tuning came to, in words, tables and data."""

import math
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.display.summary import Summarized
from mergeplan.display.table import align_columns
from mergeplan.display.text import counted, finite, listed
from mergeplan.evaluation.scores import Estimate, Scores, difference
from mergeplan.subset_law.spread import NINE_IN_TEN
from mergeplan.tuning.aim import Aim
from mergeplan.tuning.leaving_out import LeftOut
from mergeplan.tuning.steps import Step

Array = NDArray[np.float64]

VERSION = 1
# Weights so near to a bound lie at it.
_AT_BOUND = 1e-4
_MOST_ROWS = 60
# Of what approximate slopes promise, below which a reader must know.
_KEPT = 0.5
# Nats that a tenth of lambda has to do to be worth a line.
_TELLING = 5e-4


@dataclass(frozen=True)
class Rival:
    """Something that the tuned merge is held against, on the reporting half.

    Attributes:
        value: Its own.
        gain: By how much the tuned merge is better, with its paired 90 % interval; NaN where there
            are too few documents.
        domains: The same of each domain: gain, low, high.
    """

    name: str
    value: float
    gain: float
    low: float
    high: float
    domains: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, aim: Aim, scores: Scores, tuned: Scores) -> "Rival":
        value = aim.value(scores.losses())
        domains = {
            domain: _interval(one) for domain, one in difference(scores, tuned).estimates().items()
        }
        return cls(name, value, *_interval(aim.gain(scores, tuned)), domains)


def _interval(one: Estimate) -> tuple[float, float, float]:
    margin = NINE_IN_TEN * one.se
    return one.loss_nats, one.loss_nats - margin, one.loss_nats + margin


@dataclass(frozen=True, repr=False)
class Tuned(Summarized):
    """A tuned merge.

    Attributes:
        aim: What it was tuned for.
        by: Which tensors of an expert share a weight.
        weights: Shape (n_experts, n_groups), in the order of `experts` and `groups`.
        bounds: Least and largest weight.
        penalty: Towards equal weights, by which these were found; 0 for none.
        stopped: Why the search ended.
        points: Points with slopes, base and equal weights among them.
        kept: Points that an earlier run had measured.
        tokens: Forward passes in all, in tokens; a backward pass counts two.
        pass_tokens: Of one pass through the half that was tuned on.
        scores: Of the tuned merge on the reporting half.
        value: What counts of them.
        left_out: What costs the least to leave out, measured.
        effects: By domain, what each weight does to its loss; see `leaving_out.effects`.
        elects: Whether slopes are approximate, of a method that elects signs.
        strength: Lambda.
        along_lambda: By how much what counts rises for one more of it, where slopes were taken;
            `None` of a run that an earlier version measured.
        config: The merge's YAML.
        shares: Of the domains in what counts.
        parts: Of each group its layer and its kind; see `Groups`.
        steps: How the search went.
        promised: What a further step would gain by the slopes, where the budget ended the search.
    """

    aim: str
    by: str
    method: str
    experts: tuple[str, ...]
    groups: tuple[str, ...]
    weights: Array
    bounds: tuple[float, float]
    penalty: float
    stopped: str
    points: int
    kept: int
    tokens: int
    pass_tokens: int
    seconds: float
    scores: Scores
    rivals: tuple[Rival, ...]
    value: float
    left_out: tuple[LeftOut, ...]
    effects: dict[str, Array] = field(repr=False)
    elects: bool
    strength: float
    along_lambda: float | None
    config: Path
    shares: dict[str, float]
    parts: tuple[tuple[str, str], ...]
    steps: tuple[Step, ...] = field(repr=False)
    promised: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def passes(self) -> float:
        """Forward passes through the half that was tuned on."""
        return self.tokens / self.pass_tokens

    @property
    def kept_promises(self) -> float:
        """The share of what slopes promised of steps that these gained; NaN without steps."""
        promised = sum(one.promised or 0.0 for one in self.steps)
        gained = sum(one.gained or 0.0 for one in self.steps)
        return gained / promised if promised else math.nan

    @property
    def next_command(self) -> str:
        """What makes the merge."""
        return shlex.join(["mergeplan", "merge", str(self.config), "OUT_DIR"])

    @property
    def at_bound(self) -> tuple[str, ...]:
        """Weights that lie at a bound, by expert, and group where there are several."""
        low, high = self.bounds
        places = np.argwhere((self.weights <= low + _AT_BOUND) | (self.weights >= high - _AT_BOUND))
        one = len(self.groups) == 1
        return tuple(
            self.experts[i] if one else f"{self.experts[i]} in {self.groups[g]}" for i, g in places
        )

    @property
    def doubts(self) -> list[str]:
        """What a reader must know."""
        found = list(self.warnings)
        if names := self.at_bound:
            low, high = self.bounds
            found.append(
                f"the best weights may lie beyond the bounds {low:g} and {high:g}:"
                f" {listed(names, 5)}; wider ones are given by `--bounds`"
            )
        if self.elects and self.kept_promises < _KEPT:
            found.append(
                f"slopes of `{self.method}`, which elects signs, are approximate, and here they"
                f" mislead: steps gained {self.kept_promises:.0%} of what was promised; what was"
                " accepted is measured, but better weights may lie where no slope led"
            )
        if self.promised > 0:
            found.append(
                f"the budget ended the search: by the slopes the next step gains"
                f" {self.promised:.4f}, outside of what was measured; `--budget` allows more points"
            )
        for one in self.rivals:
            if one.gain < 0:
                found.append(
                    f"on documents that had no part in tuning, the tuned merge is worse than"
                    f" {one.name}"
                )
        return found

    def summary(self) -> str:
        """Gains, then weights, then what could be left out."""
        n_groups = len(self.groups)
        unknowns = f"{counted(len(self.experts), 'experts')}"
        if n_groups > 1:
            unknowns += f" by {self.by.replace(',', ' and ')}, {self.weights.size} weights,"
        head = (
            f"tuned {unknowns} for {self.aim}: {counted(self.points, 'points')} with slopes,"
            f" {self.passes:.1f} forward passes, {self.seconds:.0f} s; {self.stopped}"
        )
        if np.isfinite(self.kept_promises):
            head += f"\nits steps gained {self.kept_promises:.0%} of what slopes promised"
        if self.elects:
            head += f"\nslopes are approximate: `{self.method}` elects signs, which change by jumps"
        documents = sum(one.n_documents for one in self.scores.estimates().values())
        lines = [
            head,
            "",
            f"on the other half, {counted(documents, 'documents')} that had no part in it:"
            f" {self.value:.4f}",
        ]
        for one in self.rivals:
            verb = "better" if one.gain >= 0 else "worse"
            interval = ""
            if np.isfinite(one.low):
                interval = f", {one.low:+.4f} to {one.high:+.4f} (90 %, paired)"
            lines.append(f"  {abs(one.gain):.4f} {verb} than {one.name}, {one.value:.4f}{interval}")
        lines += ["", *self._weights(), "", *self._effects()]
        more = 0.1 * self.strength * (self.along_lambda or 0.0)
        if abs(more) >= _TELLING:
            lines += ["", f"a tenth more of lambda, {self.strength:g}, adds {more:+.4f}"]
        if free := [one for one in self.left_out if one.free]:
            lines += ["", "could be left out, each alone, and the texts would not tell:"]
            lines += [f"  {one.what} {one.name}: {one.cost:+.4f} ± {one.se:.4f}" for one in free]
        return "\n".join(lines)

    def _weights(self) -> list[str]:
        rows = [
            (name, *(f"{w:.3f}" for w in self.weights[:, g]), f"{self.weights[:, g].sum():.3f}")
            for g, name in enumerate(self.groups[:_MOST_ROWS])
        ]
        more = len(self.groups) - _MOST_ROWS
        table = align_columns([("weights", *self.experts, "sum"), *rows], left=1)
        return [*table, *([f"and {more} more, in tune.json"] if more > 0 else [])]

    def _effects(self) -> list[str]:
        rows = [
            (name, *(f"{value:+.4f}" for value in values.sum(1)), f"{values.sum():+.4f}")
            for name, values in self.effects.items()
        ]
        return align_columns([("effect on", *self.experts, "all"), *rows], left=1)

    def records(self) -> list[dict[str, Any]]:
        """A row for each weight."""
        return [
            {"expert": expert, "group": group, "weight": float(self.weights[i, g])}
            for i, expert in enumerate(self.experts)
            for g, group in enumerate(self.groups)
        ]


def result_data(found: Tuned) -> dict[str, Any]:
    """What `tune.json` and `--json` have."""
    return {
        "version": VERSION,
        "aim": found.aim,
        "by": found.by,
        "method": found.method,
        "experts": list(found.experts),
        "groups": list(found.groups),
        "weights": found.weights.tolist(),
        "bounds": list(found.bounds),
        "at_bound": list(found.at_bound),
        "penalty": found.penalty,
        "stopped": found.stopped,
        "points": found.points,
        "passes": found.passes,
        "pass_tokens": found.pass_tokens,
        "seconds": found.seconds,
        "value": found.value,
        "domains": found.scores.losses(),
        "shares": found.shares,
        "parts": [{"layer": layer, "kind": kind} for layer, kind in found.parts],
        "steps": [asdict(one) for one in found.steps],
        "promised": found.promised,
        "rivals": [finite(asdict(one)) for one in found.rivals],
        "left_out": [
            {"what": one.what, "name": one.name, "cost": one.cost, "free": one.free}
            | {"se": one.se if np.isfinite(one.se) else None}
            for one in found.left_out
        ],
        "approximate": found.elects,
        "lambda": {"value": found.strength, "slope": found.along_lambda},
        "effects": {name: values.tolist() for name, values in found.effects.items()},
        "config": str(found.config),
        "next": found.next_command,
        "warnings": found.doubts,
    }
