"""The law over sizes on trial: the published laws, with each size off as a whole.

Another recipe or learning rate at a size moves its whole curve, that of the size that is forecast
as well. Only `fit` and `predict` are asked, so that the judge runs on earlier states as well:
`PYTHONPATH=EARLIER/python python -m tests.tools.trial --only sizes`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mergeplan.law.fit import fit
from mergeplan.law.formulas import JointLaw
from mergeplan.measurements.rows import MACRO, Measurement, Measurements
from tests.support.published_laws import published

Array = NDArray[np.float64]

CONFIDENCE = 0.9
# Standard deviation of a size's effect, in % of its losses.
SHIFTS = (0.0, 0.2, 0.5, 1.0)
# Sizes in billions of parameters: measured, and forecast.
DESIGNS = {
    "0.5 to 14": (0.5, 1.5, 3, 7, 14),
    "0.5, 3, 14": (0.5, 3, 14),
    "0.5, 1.5, 3": (0.5, 1.5, 3),
}
LARGER = (32, 72)
KS = (1, 2, 4, 9)
POOL = 9
METHODS = ("average", "task_arithmetic", "ties")


@dataclass
class Score:
    """What was said of a larger size; all but `held` in % of the true loss.

    Attributes:
        winkler: Width plus 20 times what it missed by.
        error: Of the expected loss, without sign.
        narrow: Intervals of no width.
    """

    held: list[bool] = field(default_factory=list)
    winkler: list[float] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    narrow: int = 0


# By design, size that is forecast, and shift.
Scores = dict[tuple[str, float, float], Score]


def on_trial(*, share: bool, seed: int, each: int) -> Scores:
    """Every published law by every shift and design, a sixth of `each` times."""
    scores: Scores = defaultdict(Score)
    laws = [law for method in METHODS for law in published(method).values()]
    for number, law in enumerate(laws[::9] if share else laws):
        # In the share each design meets another law.
        designs = list(DESIGNS)[number : number + 1] if share else DESIGNS
        for repeat in range(1 if share else max(1, each // 6)):
            drawn = np.random.default_rng([seed, number, repeat]).standard_normal(7)
            for name in designs:
                for shift in (0.5,) if share else SHIFTS:
                    _judge(law, name, shift, drawn, scores)
    return dict(scores)


def _judge(law: JointLaw, name: str, shift: float, drawn: Array, scores: Scores) -> None:
    every = dict(zip((*DESIGNS["0.5 to 14"], *LARGER), 1 + shift / 100 * drawn, strict=True))
    fitted = fit(Measurements(tuple(_rows(law, {n: every[n] for n in DESIGNS[name]})), ""))
    for n in LARGER:
        score = scores[name, n, shift]
        for k in KS:
            truth = law.predict(k, n) * every[n]
            said = fitted.predict(k, n * 1e9, "average", CONFIDENCE)
            missed = max(said.low - truth, truth - said.high, 0.0)
            width = said.high - said.low
            score.held.append(missed <= 1e-9)
            score.width.append(100 * width / truth)
            score.winkler.append(100 * (width + 2 / (1 - CONFIDENCE) * missed) / truth)
            score.error.append(100 * abs(said.loss - truth) / truth)
            score.narrow += width <= 0


def _rows(law: JointLaw, factors: dict[float, float]) -> Iterator[Measurement]:
    for n, factor in factors.items():
        for k in KS:
            yield Measurement(
                row=2,
                k=k,
                loss_nats=law.predict(k, n) * factor,
                method="average",
                domain=MACRO,
                n_params=n * 1e9,
                pool_size=POOL,
            )


def report(scores: Scores) -> list[str]:
    """Lines for people."""
    head = "sizes measured | forecast | each off by | held | interval score, width and error in %"
    lines = [f"{head} of the loss"]
    for (name, n, shift), score in scores.items():
        held = f"{100 * np.mean(score.held):4.0f} % of {len(score.held)}"
        numbers = " ".join(
            f"{np.mean(values):7.2f}" for values in (score.winkler, score.width, score.error)
        )
        narrow = f", {score.narrow} OF NO WIDTH" if score.narrow else ""
        lines.append(f"{name:<12} | {n:3g}B | {shift:g} % | {held} | {numbers}{narrow}")
    return lines


def data(scores: Scores) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "measured": name,
            "forecast": n,
            "shift": shift,
            "held": float(np.mean(score.held)),
            "winkler": float(np.mean(score.winkler)),
            "width": float(np.mean(score.width)),
            "error": float(np.mean(score.error)),
            "narrow": score.narrow,
            "n": len(score.held),
        }
        for (name, n, shift), score in scores.items()
    ]
