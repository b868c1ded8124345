"""Laws of few merges, held against the truth at all others."""

import time
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from mergeplan.subset_law.fit import fit_subset_law
from mergeplan.subset_law.spread import NINE_IN_TEN


@dataclass
class Score:
    """Of one design and target; `within` is the least R² of subsets of one k, `free` what `held` is
    at weights of other sums than 1."""

    r2: float
    within: float
    rank: float
    held: float
    regret: float
    seconds: float
    free: float


class Truth:
    """All that was measured of a pool: macro, and each domain by its number."""

    def __init__(self, merges, gram=None):
        self.merges, self.gram = merges, gram
        self.weights = np.array(list(merges.losses))
        self.values = np.array(list(merges.losses.values()))
        self.places = {tuple(row): at for at, row in enumerate(self.weights.tolist())}

    def of(self, by_domain, domain):
        return by_domain.mean(-1) if domain is None else by_domain[..., domain]

    def score(self, design, domain, with_slopes):
        """A law of one design's merges at all others, of weights that sum to 1."""
        rows = np.array([self.places[tuple(row)] for row in design.tolist()])
        values, slopes = self.of(self.values, domain), None
        if with_slopes:
            each = [self.merges.slopes[tuple(row)] for row in design.tolist()]
            slopes = np.array([self.of(one.T, domain) for one in each])
        begun = time.process_time()
        names, gram = self.merges.experts, self.gram
        law = fit_subset_law(design, values[rows], names, gram=gram, slopes=slopes)
        seconds = time.process_time() - begun
        plain = np.abs(self.weights.sum(1) - 1) < 1e-6
        rest = np.setdiff1d(np.flatnonzero(plain), rows)
        truth, found = values[rest], law.predict(self.weights[rest])
        k = (self.weights[rest] > 0).sum(1)
        # Of sizes of which enough subsets are there to have a variance.
        many = [one for one in np.unique(k) if (k == one).sum() > 3]
        inside = np.abs(found - truth) <= NINE_IN_TEN * law.deviations(self.weights[rest])
        loose = np.flatnonzero(~plain & self.weights.any(1))
        apart = np.abs(law.predict(self.weights[loose]) - values[loose])
        within = apart <= NINE_IN_TEN * law.deviations(self.weights[loose])
        chosen = law.predict(self.weights)
        chosen[rows] = values[rows]
        chosen[~plain] = np.inf
        return Score(
            r2_of(found, truth),
            min(r2_of(found[k == one], truth[k == one]) for one in many),
            spearmanr(found, truth)[0],
            inside.mean(),
            values[np.argmin(chosen)] - values[plain].min(),
            seconds,
            within.mean() if len(loose) else np.nan,
        )


def r2_of(found, truth):
    return 1 - ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


def line(label, scores):
    """Median of R², the worst within a k, coverage and regret, over designs."""
    r2, within, rank, held, regret, seconds, free = np.array(
        [list(vars(s).values()) for s in scores]
    ).T
    print(
        f"{label:20} R2 {np.median(r2):7.4f} (worst {r2.min():7.4f})"
        f"  within {np.median(within):7.4f}"
        f" ({within.min():7.4f})  rank {np.median(rank):6.4f}  90 %: {held.mean():4.2f}"
        f" free {free.mean():4.2f}"
        f"  regret {np.median(regret):.5f} ({regret.max():.5f})  {seconds.mean():.1f} s",
        flush=True,
    )
