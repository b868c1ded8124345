"""The best low-rank factors of a matrix, to a rank or to a share of its squared singular values.

    for growing l:                                   # randomised, Halko et al. 2011, algorithm 4.4
        Q = orth(Δ Ω), Ω of l columns from a seed
        four times: Q = orth(Δ orth(Δᵀ Q))
        σ, V from the SVD of Qᵀ Δ
        enough? its first r columns, r < ⅔ l
    l no longer small beside the matrix:             # exact
        σ² and one side's vectors from the eigenvalues of Δ Δᵀ or Δᵀ Δ, in float64

The sketch is half as wide again as the rank, and 16 columns more: at four passes the error is
within 0.1 % of the least on random matrices, whose spectrum is the flattest there is. One thread's
BLAS computes each matrix, so that its bytes do not depend on how many work side by side.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_PASSES = 4
_FIRST_RANK = 32
# Where so little may be left out, float32 products no longer tell how much is.
_LEAST_IN_FLOAT32 = 1e-4
_STRIP_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Rule:
    """How large a rank is taken; exactly one is given.

    Attributes:
        rank: That many columns, or as many as the matrix has.
        left_out: The least rank that leaves out at most this share of the squared singular values.
    """

    rank: int | None = None
    left_out: float | None = None


@dataclass(frozen=True)
class Factors:
    """B of shape (rows, rank) and A of shape (rank, columns), whose product stands for a matrix."""

    a: Matrix
    b: Matrix

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


def factorise(delta: Matrix, rule: Rule, seed: int) -> Factors:
    """Factors of least error, of at most as many columns as singular values are not zero.

    Args:
        seed: Of the sketch.

    Raises:
        numpy.linalg.LinAlgError: LAPACK does not converge.
    """
    side = min(delta.shape)
    total = squared_norm(delta)
    rank = min(rule.rank or _FIRST_RANK, side)
    exact = rule.left_out is not None and rule.left_out < _LEAST_IN_FLOAT32
    while not exact and (width := rank + rank // 2 + 16) <= side // 2:
        left, values, right = _sketch(delta, width, seed)
        found = _chosen(values.astype(np.float64) ** 2, total, rule)
        if found is not None and found <= rank:
            return _split(left[:, :found], values[:found], right[:found])
        rank *= 2
    return _exact(delta, total, rule)


def squared_norm(delta: Matrix) -> float:
    """Sum of squares, in float64, in strips."""
    flat = delta.reshape(-1)
    total = 0.0
    for begin in range(0, flat.size, _STRIP_ELEMENTS):
        strip = flat[begin : begin + _STRIP_ELEMENTS].astype(np.float64)
        total += float(strip @ strip)
    return total


def squared_error(delta: Matrix, a: Matrix, b: Matrix) -> float:
    """Of what factors leave of a matrix, as they are stored; in strips of rows."""
    rows = max(1, _STRIP_ELEMENTS // delta.shape[1])
    return sum(
        squared_norm(delta[begin : begin + rows] - b[begin : begin + rows] @ a)
        for begin in range(0, delta.shape[0], rows)
    )


def _sketch(delta: Matrix, width: int, seed: int) -> tuple[Matrix, Matrix, Matrix]:
    from scipy.linalg import qr, svd

    def orthonormal(matrix: Matrix) -> Matrix:
        q: Matrix = qr(matrix, mode="economic", overwrite_a=True)[0]
        return q

    random = np.random.Generator(np.random.Philox(seed))
    q = orthonormal(delta @ random.standard_normal((delta.shape[1], width), np.float32))
    for _ in range(_PASSES):
        q = orthonormal(delta @ orthonormal(delta.T @ q))
    inner, values, right = svd(q.T @ delta, full_matrices=False, overwrite_a=True)
    return q @ inner, values, right


def _exact(delta: Matrix, total: float, rule: Rule) -> Factors:
    from scipy.linalg import eigh

    wide = delta.shape[0] <= delta.shape[1]
    tall = delta.T if wide else delta
    squares, vectors = eigh(_gram(tall), overwrite_a=True)
    squares, vectors = np.maximum(squares[::-1], 0.0), vectors[:, ::-1]
    # What rounding makes of a zero.
    n_nonzero = int(np.count_nonzero(squares > squares[0] * 1e-14 * len(squares)))
    rank = min(_chosen(squares, total, rule) or n_nonzero, n_nonzero)
    values = np.sqrt(squares[:rank])
    right: Any = vectors[:, :rank].astype(np.float32)
    left = tall @ right / values.astype(np.float32)
    if wide:
        return _split(right, values, left.T)
    return _split(left, values, right.T)


def _gram(tall: Matrix) -> NDArray[np.float64]:
    """Its columns' inner products, in float64, from strips of rows."""
    found = np.zeros((tall.shape[1], tall.shape[1]))
    rows = max(1, _STRIP_ELEMENTS // tall.shape[1])
    for begin in range(0, tall.shape[0], rows):
        strip = tall[begin : begin + rows].astype(np.float64)
        found += strip.T @ strip
    return found


def _chosen(squares: NDArray[np.float64], total: float, rule: Rule) -> int | None:
    """The rank that the rule wants; `None` where these values are not enough."""
    if rule.rank is not None:
        return min(rule.rank, int(np.count_nonzero(squares > squares[0] * 1e-12)))
    assert rule.left_out is not None
    enough = np.cumsum(squares) >= total * (1 - rule.left_out)
    return int(np.argmax(enough)) + 1 if enough.any() else None


def _split(left: Any, values: Any, right: Any) -> Factors:
    """Singular values go to both sides alike, so that neither overflows 16 bits."""
    roots = np.sqrt(values).astype(np.float32)
    return Factors(
        a=np.ascontiguousarray(roots[:, None] * right, np.float32),
        b=np.ascontiguousarray(left * roots, np.float32),
    )
