"""Rows of merges that were scored on a part of the text: they are never taken for known."""

import json

import numpy as np
import pytest

import mergeplan
from mergeplan.calibration.check_choice import _hashes
from mergeplan.errors import InputError
from mergeplan.evaluation.edited import edited_rows
from mergeplan.evaluation.measured import MeasuredMerge, scores_line
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.measurements.doubts import doubtful_texts
from mergeplan.measurements.file import read_rows
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.selection.table import tables_of
from mergeplan.verdict.contenders import is_complete
from mergeplan.verdict.known import known_merges
from tests.support.commands import cli

HEAD = "n_params,method,k,subset,domain,loss_nats,text_se,data_hash\n"
WHOLE = "1e9,base,0,,x,2.0,,h\n1e9,average,1,a,x,1.9,,h\n1e9,average,2,a+b,x,1.7,,h\n"
PARTLY = '1e9,average,1,b,x,1.5,0.01,"h, part 1 of 4"\n'


def table_of(folder, rows=WHOLE + PARTLY):
    path = folder / "measurements.csv"
    path.write_text(HEAD + rows)
    return path


def test_a_part_is_never_known_nor_makes_a_table_complete(tmp_path):
    rows, _ = read_rows(table_of(tmp_path))
    assert [one.merge.subset for one in known_merges(rows)] == [(), ("a",), ("a", "b")]
    (table,) = tables_of(rows)
    assert not is_complete(table)
    (table,) = tables_of(read_rows(table_of(tmp_path, WHOLE + "1e9,average,1,b,x,1.5,,h\n"))[0])
    assert is_complete(table)


def test_no_curve_is_of_what_was_left_whole_for_being_good(tmp_path):
    path = table_of(tmp_path)
    for read in (mergeplan.fit, mergeplan.suggest, lambda p: mergeplan.plot(p, tmp_path / "p.svg")):
        with pytest.raises(InputError, match="1 rows with a `text_se`.*no mean of all") as told:
            read(path)
        assert "`--tokens all`" in told.value.hint
    # The verdict stays, of what is known, and counts who was scored alone.
    said = cli("suggest", path)
    assert "no curve of means: nothing to fit: 1 rows with a `text_se`" in said.stderr
    assert "the expert `b`: 1.5000 predicted" in said.stdout
    assert "of 2 experts 1 was measured alone, `a` on all documents, 1 on a part" in said.stdout


def test_a_part_without_its_error_is_refused_and_other_texts_are_named(tmp_path):
    path = table_of(tmp_path, WHOLE + PARTLY.replace("0.01", ""))
    with pytest.raises(InputError, match="row 5, column `text_se`.*found nothing"):
        read_rows(path)
    assert doubtful_texts(read_rows(table_of(tmp_path))[0]) == []
    for row in ("1e9,average,1,b,x,1.5,,g\n", PARTLY.replace("h,", "g,")):
        found = doubtful_texts(read_rows(table_of(tmp_path, WHOLE + row))[0])
        assert len(found) == 1
        assert "row 5 was measured on another text, `g`, than row 2, `h`" in found[0]
    for command in ("fit", "suggest", "select"):
        path = table_of(tmp_path, WHOLE + "1e9,average,1,b,x,1.5,,g\n")
        assert "on another text" in cli(command, path).stderr


def test_which_half_was_measured_is_told_by_whole_rows(tmp_path):
    assert _hashes(table_of(tmp_path), 1e9, "") == {"h"}


def test_scores_of_a_part_do_not_say_that_a_whole_row_was_edited(tmp_path):
    path = table_of(tmp_path, WHOLE)
    run = {"texts": {"the text of size 1": "h"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    domain = DomainScores(np.arange(4), np.full(4, 10), np.full(4, 30.0))
    merge = SubsetMerge(0, 1e9, "base", "{}", ())
    for parts, edited in ((2, False), (None, True)):
        one = MeasuredMerge(merge, Scores({"x": domain}), (0.0, 0.0), parts=parts)
        (tmp_path / "scores.jsonl").write_bytes(scores_line(one))
        assert ("was edited" in edited_rows(path, read_rows(path)[0])) == edited
    # Nor does a row of a part say so, where the whole was scored since.
    path = table_of(tmp_path, '1e9,base,0,,x,2.0,0.01,"h, part 2 of 4"\n')
    assert edited_rows(path, read_rows(path)[0]) == ""
