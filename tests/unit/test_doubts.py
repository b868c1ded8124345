"""Base sizes of a table that look like a slip are warned of."""

import re

import pytest

from mergeplan.measurements.doubts import doubtful_shares, doubtful_sizes
from mergeplan.measurements.file import read_rows
from tests.support.commands import cli

HEAD = "n_params,k,subset,loss_nats\n"
BASE = "1e9,0,,2.0\n"
ROWS = "1e9,1,a,1.9\n1e9,1,b,1.8\n1e9,2,a+b,1.7\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (BASE + "1.01e9,2,a+c,1.6", "1000000000 and 1010000000, nearly the same .* first in row 6"),
        ("0.99e9,0,,2.0", "990000000 and 1000000000, nearly the same"),
        (",2,a+c,1.6", "1 of 4 rows have no `n_params`, the first is row 5"),
        ("2e9,2,a+c,1.6", ""),
    ],
)
def test_a_size_that_looks_like_a_slip_is_named(tmp_path, row, said):
    path = tmp_path / "m.csv"
    path.write_text(HEAD + ROWS + row + "\n")
    found = doubtful_sizes(read_rows(path)[0])
    assert len(found) == bool(said)
    assert re.search(said, "".join(found))


def test_bases_that_are_both_measured_may_be_near(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(HEAD + BASE + ROWS + (BASE + ROWS).replace("1e9", "1.01e9"))
    assert doubtful_sizes(read_rows(path)[0]) == []


def test_the_commands_warn_of_it(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(HEAD + ROWS + "1.01e9,2,a+c,1.6\n")
    for command in ("fit", "suggest"):
        assert "nearly the same" in cli(command, path).stderr


@pytest.mark.parametrize(
    ("metric", "values", "said"),
    [
        ("acc", (0.5, 0.6, 1.3), ["row 4, column `value`: `acc` of 1.3, where 2 of 3 are shares"]),
        ("acc", (0.5, 0.6, 1.0), []),
        ("bleu", (15.1, 18.0, 0.9), []),
        ("bits_per_byte", (0.9, 0.95, 1.1), []),
    ],
)
def test_a_value_that_is_no_share_beside_shares_is_named(tmp_path, metric, values, said):
    path = tmp_path / "m.csv"
    rows = [f"{k},{metric},{value},higher,0.02,500\n" for k, value in enumerate(values)]
    path.write_text("k,metric,value,better,value_se,n_items\n" + "".join(rows))
    found = doubtful_shares(read_rows(path)[0])
    assert [text[: len(start)] for text, start in zip(found, said, strict=True)] == said
    if said:
        assert said[0] in cli("fit", path, "--metric", metric).stderr


@pytest.mark.parametrize(("wrong", "n", "said"), [(62.5, 40, 1), (1.2, 40, 1), (62.5, 5, 0)])
def test_one_percent_among_shares_of_no_known_items_is_named(tmp_path, wrong, n, said):
    path = tmp_path / "m.csv"
    rows = [f"{1 + place % 6},acc,{0.5 + place / 100},higher\n" for place in range(n)]
    path.write_text("k,metric,value,better\n" + "".join(rows) + f"3,acc,{wrong},higher\n")
    assert len(doubtful_shares(read_rows(path)[0])) == said
