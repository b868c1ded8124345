"""Merges that were scored on a part of the text: what is expected of them on the whole."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mergeplan.measurements.rows import MergeKey
from mergeplan.reporting.source import Source, group_of
from mergeplan.selection.selection import Selections
from mergeplan.subset_law.spread import NINE_IN_TEN


def predict_parts(source: Source, merges: Mapping[MergeKey, dict[str, Any]]) -> None:
    """Adds `p` to such merges: by target what the law expects, and half its 90 % interval."""
    partial = {row.merge_key for row in source.rows if row.k and row.text_se}
    if not partial or not isinstance(source.selections, Selections):
        return
    for one in source.selections:
        table = one.table
        group = group_of(table)
        own = [merges[key] for key in merges if key in partial and key[:3] == group]
        weights = np.zeros((len(own), len(table.experts)))
        for line, merge in zip(weights, own, strict=True):
            places = [table.experts.index(source.experts[place]) for place in merge["x"]]
            line[places] = merge.get("w") or 1 / len(places)
        for number, target in enumerate(source.targets if own else ()):
            law = one.law if target.name == one.law.name else one.laws.get(target.name)
            if law is None:
                continue
            found = zip(own, law.predict(weights), law.deviations(weights), strict=True)
            for merge, value, deviation in found:
                expected = merge.setdefault("p", {})
                expected[number] = [float(value), NINE_IN_TEN * float(deviation)]
