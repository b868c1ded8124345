"""How good and how fast is the fit, beside scipy's `curve_fit` with the usual start?

    pytest tests/bench/bench_fit.py -s

A thousand simulated curves Linf + A/(k + b) with noise: how often each finds the lower sum of
squares, how far off its floor and its k for a target are, and how long it takes. The usual start is
the one of the only public code for this law: floor = min, tail = drop · (k + 1), offset = 1.
"""

import numpy as np
import pytest

from mergeplan.law.fit import fit_law
from mergeplan.law.formulas import HyperbolicLaw, SizeLaw

CURVES = 1000
K = np.arange(1.0, 10.0)


def curves() -> list[tuple[SizeLaw, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(CURVES):
        law = HyperbolicLaw(
            rng.uniform(0.3, 2.0), rng.uniform(0.05, 0.5), float(rng.exponential(1.0))
        )
        drop = law.predict(1) - law.predict(9)
        clean = np.array([law.predict(k) for k in K])
        found.append((law, clean + rng.normal(0, 0.02 * drop, len(K)) / np.sqrt(K)))
    return found


def by_mergeplan(loss: np.ndarray) -> SizeLaw:
    return fit_law(K, loss, K)


def by_curve_fit(loss: np.ndarray) -> SizeLaw | None:
    from scipy.optimize import curve_fit

    start = [loss.min(), (loss.max() - loss.min()) * (K[0] + 1), 1.0]
    try:
        found, _ = curve_fit(
            lambda k, floor, tail, offset: floor + tail / (k + offset),
            K,
            loss,
            p0=start,
            sigma=1 / np.sqrt(K),
            bounds=([0, 0, 0], [10, 50, 50]),
        )
    except RuntimeError:
        return None
    return HyperbolicLaw(*map(float, found))


def cost(law: SizeLaw | None, loss: np.ndarray) -> float:
    if law is None:
        return np.inf
    return float((K * (loss - np.array([law.predict(k) for k in K])) ** 2).sum())


@pytest.mark.parametrize("fitter", [by_mergeplan, by_curve_fit], ids=lambda f: f.__name__)
def test_fit(benchmark, fitter):
    data = curves()
    laws = benchmark.pedantic(
        lambda: [fitter(loss) for _, loss in data], rounds=1, iterations=1, warmup_rounds=1
    )
    best = [min(cost(by_mergeplan(y), y), cost(by_curve_fit(y), y)) for _, y in data]
    floors, ks, optimal = [], [], 0
    for (truth, loss), law, least in zip(data, laws, best, strict=True):
        optimal += cost(law, loss) <= least * (1 + 1e-6)
        if law is None:
            continue
        floors.append(abs(law.floor - truth.floor))
        found = law.solve(truth.predict(5))
        ks.append(abs(found - 5) if found is not None else np.inf)
    row = {
        "optimal": optimal / CURVES,
        "floor error": float(np.median(floors)),
        "k error": float(np.median(ks)),
        "ms": 1000 * benchmark.stats.stats.min / CURVES,
    }
    benchmark.extra_info.update(row)
    print("\n", fitter.__name__, {key: f"{value:.4g}" for key, value in row.items()})
    if fitter is by_mergeplan:
        assert row["optimal"] >= 0.999
