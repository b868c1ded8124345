"""Points of a tuning: the same numbers, whoever measures which part of one first."""

import json

import numpy as np
import pytest

from mergeplan.calibration.setup import Setup
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.tuning.folder import TuneFolder
from mergeplan.tuning.measuring import Measuring
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.points import Ask, Points
from mergeplan.tuning.prepared import prepare
from mergeplan.tuning.tasks import GRADIENT
from tests.support.pools import write_pool


class Several:
    """Workers that are done in another order than they begin."""

    count = 3

    def __init__(self, prepared, setup):
        self._each = [Measuring(prepared, setup) for _ in range(2)]
        self.heavy = []

    def each(self, tasks):
        self.heavy = [task for task in tasks if task.part == GRADIENT]
        for number in reversed(range(len(tasks))):
            yield number, self._each[number % 2].do(tasks[number])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    setup = Setup(EvaluationOptions(max_tokens=1500), threads=1)
    options = TuneOptions(by="kind", setup=setup)
    pool = write_pool(tmp_path_factory.mktemp("pool"), n_texts=None)
    return prepare(pool, options), setup


def asked(executor, prepared, folder):
    """Some points, measured together."""
    run = TuneFolder(folder, prepared.identity)
    points, equal = Points(executor, prepared.texts, run), prepared.equal
    points.measure([Ask(equal), Ask(0 * equal, slopes=False), Ask(equal, reported=True)])
    run.close()
    found = map(json.loads, (folder / "points.jsonl").read_text().splitlines())
    return sorted(json.dumps(one | {"seconds": 0}) for one in found), points


def test_domains_of_a_point_go_to_several_workers_and_come_to_the_same_digits(prepared, tmp_path):
    prepared, setup = prepared
    several = Several(prepared, setup)
    expected, alone = asked(Measuring(prepared, setup), prepared, tmp_path / "alone")
    found, _ = asked(several, prepared, tmp_path / "several")
    assert len(found) == 3
    assert found == expected
    assert [task.domains for task in several.heavy] == [("html",), ("python",)]
    # What is known is not measured again.
    known = alone.at(prepared.equal, slopes=False)
    assert known.slopes is not None
    assert (
        alone.measure([Ask(prepared.equal), Ask(np.zeros_like(prepared.equal), slopes=False)]) == {}
    )
    assert len(found) == 3
