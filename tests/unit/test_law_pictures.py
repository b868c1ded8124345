"""Pictures of laws, by the numbers that are drawn."""

from itertools import pairwise

import numpy as np
import pytest

import mergeplan
from tests.support.settings import DATA

TABLE = DATA / "loss_and_scores_270k.csv"


@pytest.mark.parametrize("metric", [None, "top1", "perplexity"])
def test_the_line_lies_in_its_band_and_both_are_on_the_tables_scale(metric, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    lines, bands = [], []
    plot, fill = Axes.plot, Axes.fill_between

    def plotted(axes, *args, **how):
        if how.get("ls") != "" and len(args) == 2:
            lines.append(tuple(np.asarray(list(one), float) for one in args))
        return plot(axes, *args, **how)

    def filled(axes, *args, **how):
        bands.append(tuple(np.asarray(list(one), float) for one in args))
        return fill(axes, *args, **how)

    monkeypatch.setattr(Axes, "plot", plotted)
    monkeypatch.setattr(Axes, "fill_between", filled)
    result = mergeplan.fit(TABLE, metric=metric)
    mergeplan.plot(result, tmp_path / "law.svg")
    [fit], [(ks, low, high)] = result.fits, bands
    assert ks.tolist() == list(range(1, fit.series.pool_size + 1))
    for point in fit.series.points:
        assert low[point.k - 1] <= point.loss <= high[point.k - 1]
    (x, y) = lines[0]
    between = np.array([[a, (a + b) / 2] for a, b in pairwise(ks)]).ravel()
    at = np.interp(between, x, y)
    assert np.all(np.interp(between, ks, low) - 1e-9 <= at)
    assert np.all(at <= np.interp(between, ks, high) + 1e-9)
