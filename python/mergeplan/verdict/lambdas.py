"""A smaller factor on the merged delta, where merging does not pay at those that were measured."""

import json
from collections import defaultdict
from collections.abc import Sequence

from mergeplan.config.labels import method_of
from mergeplan.errors import InputError
from mergeplan.verdict.contenders import Contender

# Along lambda the loss is a parabola near the base: its lowest point is trusted down to this share
# of the smallest lambda that was measured.
_NEAREST = 0.2


def lambda_to_try(contenders: Sequence[Contender], base: float | None, sign: float) -> float | None:
    """The lambda at which a merge of these experts is likeliest to be better than the base.

    The parabola through the base (lambda 0) and one subset's two smallest measured lambdas has its
    lowest point there; without two, half the smallest that was measured. `None` where no merge has
    a lambda.

    Args:
        base: Its value.
        sign: 1 where less is better, else -1.
    """
    scans: dict[object, dict[float, float]] = defaultdict(dict)
    for one in contenders:
        strength = strength_of(one.merge.method, one.merge.options) if one.merge.equal else None
        if strength is not None and one.measured and one.merge.k:
            scans[one.merge.n_params, one.merge.method, one.merge.subset][strength] = one.value
    if not scans:
        return None
    # The subset with most lambdas tells most; of those the one of most experts.
    which = max(scans, key=lambda key: (len(scans[key]), len(key[2])))  # type: ignore[index]
    scan = scans[which]
    smallest, *others = sorted(scan)
    if base is None or not others:
        return round(smallest / 2, 3)
    first, second = sign * (scan[smallest] - base), sign * (scan[others[0]] - base)
    # first = p·x + q·x², second = p·y + q·y²
    x, y = smallest, others[0]
    q = (second / y - first / x) / (y - x)
    p = first / x - q * x
    lowest = -p / (2 * q) if q > 0 and p < 0 else 0.0
    return round(min(max(lowest, _NEAREST * x), x / 2 if lowest <= 0 else x), 3)


def strength_of(method: str, options: str) -> float | None:
    """The factor on the merged delta; `None` of a method that is not known, or at 0 or below.

    Args:
        options: As JSON.
    """
    try:
        _, settings = method_of(method, json.loads(options))
    except InputError:
        return None
    strength = settings.get("lambda", 1.0)
    return strength if strength > 0 else None
