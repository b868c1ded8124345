"""A folder of one command, given to another: it is said what it is and what reads it."""

import pytest

import mergeplan
from mergeplan.calibration.run_folder import recorded_in
from mergeplan.errors import MergeplanError
from mergeplan.tuning.folder import recorded_in as tuned_in
from tests.support.commands import cli
from tests.support.tunings import a_tuning

READ = "`mergeplan report` and `mergeplan status` read it"


def test_commands_that_cannot_use_a_tuning_say_what_it_is(tmp_path):
    folder = tmp_path / "tuned"
    a_tuning(folder)
    asked = (
        ("fit", folder),
        ("select", folder),
        ("suggest", folder, "--target-loss", 2),
        ("plot", folder, "-o", tmp_path / "law.svg"),
        ("merge", folder, tmp_path / "out"),
        ("inspect", folder),
    )
    for words in asked:
        done = cli(*words)
        assert done.returncode == 1, words
        assert "a run of `mergeplan tune`" in done.stderr, (words, done.stderr)
        assert f"{READ}; its merge is `{folder / 'merge.yml'}`" in done.stderr, words
    with pytest.raises(MergeplanError, match=r"but a run of `mergeplan tune`") as found:
        recorded_in(folder)
    assert found.value.hint == "choose another folder"


def test_a_merged_model_is_no_run(tmp_path):
    (tmp_path / "mergeplan_manifest.json").write_text("{}")
    for call in (
        lambda: mergeplan.status(tmp_path),
        lambda: mergeplan.report(tmp_path, tmp_path / "page.html"),
        lambda: mergeplan.fit(tmp_path),
    ):
        with pytest.raises(MergeplanError, match="a model that `mergeplan merge` wrote") as found:
            call()
        assert found.value.hint == "`mergeplan inspect` and `mergeplan verify` read it"


def test_a_run_that_has_no_table_yet_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MergeplanError, match="it is a run of `mergeplan calibrate`") as found:
        mergeplan.select(tmp_path)
    assert found.value.hint == READ
    (tmp_path / "measurements.csv").write_text("")
    with pytest.raises(MergeplanError, match="it is a folder") as found:
        mergeplan.select(tmp_path)
    assert str(tmp_path / "measurements.csv") in found.value.hint
    with pytest.raises(MergeplanError, match="it is a run of `mergeplan calibrate`"):
        tuned_in(tmp_path)
