"""`gradients.csv`: what is written reads back, and a damaged file is told by row and column."""

import pytest

from mergeplan.errors import InputError, MissingInputError
from mergeplan.measurements.slopes import GRADIENTS, Slope, read_slopes, slopes_text

KEY = (80592.0, "task_arithmetic", '{"lambda": 0.8}', ("js", "md"), "0")
ROWS = (
    Slope(KEY, "html", "js", -0.08909478978482294, "p", "d"),
    Slope(KEY, "html", "md", 1e-17),
    Slope((80592.0, "", "{}", (), ""), "html", "js", -0.5),
    Slope((None, "average", "{}", ("js",), ""), "html", "js", 3.0),
)


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / GRADIENTS).write_text(text)
        return tmp_path / GRADIENTS

    return write


def test_rows_read_back(file):
    assert read_slopes(file(slopes_text(ROWS))) == ROWS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("slope_nats", "slope", "column `slope_nats` is missing"),
        ("-0.08909478978482294", "nan", "row 2, column `slope_nats`"),
        ("-0.08909478978482294", "x", "row 2, column `slope_nats`"),
        (",js,-", ",,-", "row 2, column `expert`: expected a name, found nothing"),
        ('{""lambda"": 0.8}', "[1]", "row 2, column `options`"),
        ("80592", "many", "row 2, column `n_params`"),
        ("html,md", "html,js", "row 3: repeats row 2"),
    ],
)
def test_a_damaged_file_is_told_by_row_and_column(file, old, new, message):
    text = slopes_text(ROWS)
    assert old in text
    with pytest.raises(InputError, match=f"gradients.csv`.*{message}"):
        read_slopes(file(text.replace(old, new)))


def test_none_is_told_as_missing(tmp_path):
    with pytest.raises(MissingInputError):
        read_slopes(tmp_path / GRADIENTS)
