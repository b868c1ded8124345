"""Is one tensor another one: up to rounding, at another strength, or not at all?

Notation, all in float64:

x       what was found
r       the replay, rounded to the dtype of x
w       the replay in float32
b       where the merge begins: the base's tensor
δ       w − b, the change that the merge makes
step    the distance of neighbouring values of the coarser dtype of both, at the largest of |x|,
        |r|, |b| and the root mean square of δ: sums err by steps of their largest term
f       the factor at which b + f·δ is nearest to x

A change may be no larger than a step, above all an adapter's in 16 bits: then the base itself is
within a step of the replay. So nearness alone proves nothing: x must have moved along δ as far as
r.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mergeplan.inspection.values import (
    Side,
    Values,
    bits,
    grid_of,
    mantissa_bits,
    pieces,
    rounded,
    step,
    values_differ,
)

Status = Literal["equal", "rounding", "strength", "not applied", "unknown"]

# Elements by which a factor is made better; a stride goes over the whole tensor.
_SAMPLE = 1 << 18
# How far a factor may be from 0 or 1 beside four of its standard errors.
_NEAR = 0.02
# And no farther, however few elements there are to tell it by: half strength is no rounding.
_MOST_NOISE = 0.25


@dataclass(frozen=True)
class Closeness:
    """How a tensor stands to its replay.

    Attributes:
        differing: Elements that are not those of the replay.
        ulps: Steps from it, at most; where it is of another strength, from that.
        ulp_dtype: safetensors' name of the dtype whose steps these are.
        factor: Where `strength`, and where it is `unknown` and there is a base, the best one.
        relative_l2: Norm of the difference over that of the replay.
        unmatched: Elements that differ, of which one is NaN or infinite.
        cosine: Between what both change of the base, or between both where there is none.
        changes: Whether the merge changes this tensor of the base, as far as that was looked at.
    """

    status: Status
    elements: int
    differing: int = 0
    ulps: float = 0.0
    ulp_dtype: str | None = None
    factor: float | None = None
    relative_l2: float = 0.0
    cosine: float | None = None
    changes: bool = True
    unmatched: int = 0


def bytes_equal(x: Side, r: Side, elements: int) -> Closeness:
    """The verdict on bytes alone."""
    size = max(len(x.raw) // max(elements, 1), 1)
    differing = int((x.raw != r.raw).reshape(-1, size).any(axis=1).sum())
    return Closeness("unknown" if differing else "equal", elements, differing)


def untouched(x: Side, r: Side) -> Closeness:
    """The verdict on what is the base bit for bit, and the replay is not."""
    n = len(x.raw) * 8 // bits(x.dtype)
    sums = _Sums()
    for begin, end in pieces(n):
        sums.add(x.values(begin, end), r.values(begin, end), None, None)
    distance = _ratio(sums.residual, sums.rr) ** 0.5
    return Closeness("not applied", n, sums.differing, 0.0, x.dtype, relative_l2=distance)


def judge(
    x: Side, r: Side, w: Side | None, b: Side | None, replay_dtype: str, tolerance: float | None
) -> Closeness:
    """What a tensor is beside its replay.

    Args:
        w, b: `None` where there is no base, or nothing wider.
        replay_dtype: What the merge's own output has; `r` has that of `x`.
        tolerance: Steps that count as rounding, none at 0; `None` for `steps_allowed`.
    """
    n = len(x.raw) * 8 // bits(x.dtype)
    # What was computed in 16 bits and saved in 32 is as far off as 16 bits are.
    grid = grid_of(x, n)
    coarse = min((grid, replay_dtype), key=mantissa_bits)
    sums = _Sums()
    for begin, end in pieces(n):
        x_, r_ = x.values(begin, end), r.values(begin, end)
        sums.add(x_, r_, _values(w, begin, end), _values(b, begin, end))
    found = Closeness(
        "unknown",
        n,
        sums.differing,
        relative_l2=np.inf if sums.unmatched else _ratio(sums.residual, sums.rr) ** 0.5,
        cosine=sums.cosine(),
        changes=b is None or sums.moved > 0,
        ulp_dtype=coarse,
        unmatched=sums.unmatched,
    )
    if sums.unmatched:
        return found
    if not sums.differing:
        return replace(found, status="equal")
    rms = (sums.dd / max(n, 1)) ** 0.5
    factor = _factor(x, w or r, b, n, grid, rms) if b is not None and sums.dd else None
    near = _Nearness()
    for begin, end in pieces(n):
        x_, r_ = x.values(begin, end), r.values(begin, end)
        w_, b_ = _values(w, begin, end), _values(b, begin, end)
        near.add(x_, r_, w_, b_, factor, rms, (coarse, grid))

    def allowed(dtype: str) -> float:
        return steps_allowed(dtype) if tolerance is None else tolerance

    # δ was rounded to float32 itself, and the factor enlarges what that left.
    own = abs(factor) if factor is not None and bits(grid) == 32 else 0.0
    fits = factor is not None and near.f <= allowed(grid) + own
    if sums.is_whole() or (fits and factor is not None and abs(factor - 1) < _NEAR):
        for ulps, dtype in ((near.r, coarse), (near.w, grid)):
            if ulps <= allowed(dtype) and tolerance != 0:
                return replace(found, status="rounding", ulps=ulps, ulp_dtype=dtype)
    if b is None or not sums.moved:
        return replace(found, ulps=near.r)
    part = fits and factor is not None and abs(factor) > _MOST_NOISE
    if near.b <= allowed(grid) and sums.is_nothing() and not part:
        return replace(found, status="not applied", ulps=near.b, ulp_dtype=grid)
    if fits:
        return replace(found, status="strength", ulps=near.f, ulp_dtype=grid, factor=factor)
    return replace(found, ulps=near.r, factor=factor)


def _values(side: Side | None, begin: int, end: int) -> Values | None:
    return None if side is None else side.values(begin, end)


class _Nearness:
    """The most steps from the replay, its float32, the base, and the base at another strength.

    What was never rounded is half a step from what was.
    """

    def __init__(self) -> None:
        self.r = self.w = self.b = self.f = 0.0

    def add(
        self,
        x: Values,
        r: Values,
        w: Values | None,
        b: Values | None,
        factor: float | None,
        rms: float,
        dtypes: tuple[str, str],
    ) -> None:
        """One piece.

        Args:
            dtypes: Whose steps count for `r`, and for all others.
        """
        coarse, grid = dtypes
        scale = np.maximum(np.maximum(np.abs(x), np.abs(r)), rms)
        if b is not None:
            scale = np.maximum(scale, np.abs(b))
        own = step(scale, grid)
        w = r if w is None else w
        self.r = max(self.r, _most(x, r, step(scale, coarse)))
        self.w = max(self.w, _most(x, w, own) - 0.5)
        if b is None:
            return
        self.b = max(self.b, _most(x, b, own) - 0.5)
        if factor is not None:
            target = b + factor * (w - b)
            own = step(np.maximum(scale, np.abs(target)), grid)
            self.f = max(self.f, _most(x, target, own) - 0.5)


def steps_allowed(dtype: str) -> float:
    """Steps that count as rounding where nobody says: sums of float32 are added up in any order.

    >>> steps_allowed("BF16"), steps_allowed("F32")
    (2, 16)
    """
    return 2 if bits(dtype) == 16 else 16


def _most(a: Values, b: Values, one: Values) -> float:
    """Steps between two, at most; what is not finite in one of them is told elsewhere."""
    with np.errstate(invalid="ignore"):
        steps = np.abs(a - b) / one
    return float(steps.max(initial=0.0, where=np.isfinite(steps)))


def _ratio(a: float, b: float) -> float:
    return a / b if b else (np.inf if a else 0.0)


def _factor(x: Side, w: Side, b: Side, n: int, grid: str, rms: float) -> float | None:
    """The factor whose result, rounded as x is, has moved along δ as far as x has.

    Least squares in steps, since small values tell it more exactly. In 16 bits they are off where
    changes are no larger than a step, of which rounding takes more or less than it gives; how far
    the rounded result moves rises with the factor, so that halving an interval finds it.
    """
    stride = max(n // _SAMPLE, 1)
    x_, w_, b_ = (
        np.concatenate([side.values(begin, end)[::stride] for begin, end in pieces(n)])
        for side in (x, w, b)
    )
    delta = w_ - b_
    along = delta / step(np.maximum(np.maximum(np.abs(x_), np.abs(b_)), rms), grid) ** 2
    wanted, length = float(along @ (x_ - b_)), float(along @ delta)
    if not length:
        return None
    if bits(grid) > 16 or not wanted:
        return wanted / length

    def moved(factor: float) -> float:
        return float(along @ (rounded(b_ + factor * delta, grid) - b_))

    sign = 1.0 if wanted > 0 else -1.0
    low, high = 0.0, 1.0
    while moved(sign * high) * sign < abs(wanted) and high < 1e3:
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if moved(sign * middle) * sign < abs(wanted) else (low, middle)
    return sign * (low + high) / 2


class _Sums:
    """What one pass over the elements adds up."""

    def __init__(self) -> None:
        self.differing = self.unmatched = self.moved = 0
        self.rr = self.xx = self.xr = self.residual = 0.0
        self.dd = self.ee = self.along_x = self.along_r = 0.0
        self._noise_r = self._noise_b = 0.0

    def add(self, x: Values, r: Values, w: Values | None, b: Values | None) -> None:
        """One piece."""
        if b is not None:
            # Of the replay alone: what x holds has no part in what the merge changes.
            self.moved += int(values_differ(r, b).sum())
        finite = np.isfinite(x) & np.isfinite(r)
        differs = values_differ(x, r)
        self.differing += int(differs.sum())
        self.unmatched += int((differs & ~finite).sum())
        x, r = np.where(finite, x, 0.0), np.where(finite, r, 0.0)
        self.rr += float(r @ r)
        self.xx += float(x @ x)
        self.xr += float(x @ r)
        self.residual += float((x - r) @ (x - r))
        if b is None:
            return
        w = r if w is None else w
        finite &= np.isfinite(w) & np.isfinite(b)
        w, b = np.where(finite, w, 0.0), np.where(finite, b, 0.0)
        delta = w - b
        self.dd += float(delta @ delta)
        self.ee += float((x - b) @ (x - b))
        self.along_x += float(delta @ (x - b))
        self.along_r += float(delta @ (r - b))
        self._noise_r += float((delta * (x - r)) @ (delta * (x - r)))
        self._noise_b += float((delta * (x - b)) @ (delta * (x - b)))

    def cosine(self) -> float | None:
        """Between both changes."""
        if self.dd and self.ee:
            return float(self.along_x / (self.dd * self.ee) ** 0.5)
        return float(self.xr / (self.xx * self.rr) ** 0.5) if self.xx and self.rr else None

    def is_whole(self) -> bool:
        """Whether x has moved along δ as far as r, as far as one can tell."""
        if not self.along_r:
            return True
        share = self.along_x / self.along_r
        error = 4 * self._noise_r**0.5 / abs(self.along_r)
        return bool(abs(share - 1) < min(_MOST_NOISE, _NEAR + error))

    def is_nothing(self) -> bool:
        """Whether x has not moved along δ."""
        if not self.along_r:
            return False
        share = self.along_x / self.along_r
        error = 4 * self._noise_b**0.5 / abs(self.along_r)
        return bool(abs(share) < min(_MOST_NOISE, _NEAR + error))
