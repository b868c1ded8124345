"""Pictures of laws, by the numbers that are drawn."""

import numpy as np
import pytest

import mergeplan
from mergeplan.law.panels import band_of
from tests.support.settings import DATA

TABLE = DATA / "loss_and_scores_270k.csv"


@pytest.mark.parametrize("metric", [None, "top1", "perplexity"])
def test_the_line_lies_in_its_band_and_both_are_on_the_tables_scale(metric):
    [fit] = mergeplan.fit(TABLE, metric=metric).fits
    band = band_of(fit)
    assert np.all((band.low <= band.middle) & (band.middle <= band.high))
    at = band.k.tolist().index
    for point in fit.series.points:
        assert band.low[at(point.k)] <= point.loss <= band.high[at(point.k)]
    assert band.middle[at(2)] == fit.predict(2).loss
