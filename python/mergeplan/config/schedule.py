"""The weights of a run's checkpoints in an average of them: float64, from the oldest, sum 1.

A decay with factors 1 ≥ w₁ ≥ … ≥ w_k ≥ 0 on the updates after checkpoint 0 is the average with
weights c₀ = 1 − w₁, cⱼ = wⱼ − wⱼ₊₁, c_k = w_k (WSM, arXiv 2507.17634). With a linear one,
wᵢ = 1 − i/(k + 1), all are 1/(k + 1): the mean. Checkpoint 0 is the last before the decay.
"""

import math
from collections.abc import Callable
from typing import Any

from mergeplan.errors import InputError, nearest
from mergeplan.system.ranges import check_number

# What is left of the learning rate at the fraction x of the decay.
_DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}
SCHEDULES = ("mean", "weighted", "ema", *_DECAYS)


def schedule_weights(schedule: str, count: int, decay: float | None = None) -> list[float]:
    """The weight of each checkpoint, from the oldest to the newest; they sum to 1.

    Args:
        schedule: One of `SCHEDULES`.
        count: How many checkpoints, at least 1.
        decay: Of `ema`, between 0 and 1: what a checkpoint counts beside the next one.

    Raises:
        InputError: No such schedule, or a `decay` that is missing, of no use or out of its bounds.

    >>> schedule_weights("mean", 4), schedule_weights("weighted", 4)
    ([0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4])
    >>> [round(c, 3) for c in schedule_weights("1-sqrt", 4)]  # the oldest counts most
    [0.5, 0.207, 0.159, 0.134]
    """
    check_schedule(schedule, decay)
    if schedule == "mean":
        return [1 / count] * count
    if schedule == "weighted":
        return [2 * (j + 1) / (count * (count + 1)) for j in range(count)]
    if schedule == "ema":
        powers = [float(decay or 0) ** (count - 1 - j) for j in range(count)]
        return [power / math.fsum(powers) for power in powers]
    left = [_DECAYS[schedule](i / count) for i in range(count)] + [0.0]
    return [left[j] - left[j + 1] for j in range(count)]


def check_schedule(schedule: Any, decay: float | None) -> None:
    """Refuse what `schedule_weights` has no weights for.

    Raises:
        InputError: As there.
    """
    if schedule not in SCHEDULES:
        known = ", ".join(SCHEDULES)
        raise InputError(
            f"`schedule`: expected one of {known}, found `{schedule}`",
            nearest(str(schedule), list(SCHEDULES)),
        )
    if schedule == "ema" and decay is None:
        raise InputError(
            "`decay` is missing: `ema` has none of its own",
            "with 0.9, say, a checkpoint counts 0.9 of what the next one does",
        )
    if decay is None:
        return
    check_number(decay, "decay", 0, 1)
    if not 0 < decay < 1:
        raise InputError(f"`decay`: expected a number between 0 and 1, found {decay}")
