"""`mergeplan status`: how a run stands, while it is at work, stopped, and at its end."""

import json
import shlex
from pathlib import Path

import pytest

import mergeplan
from mergeplan.calibration.run_folder import STATUS
from mergeplan.system.files import lock
from tests.support.commands import cli
from tests.support.pools import write_pool

ARGS = ("--quiet", "-j", "1", "--method", "dare", "--budget", "3 merges", "--no-lambda-scan")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of three merges that has ended, of the pool beside it."""
    folder = tmp_path_factory.mktemp("status")
    done = cli("calibrate", write_pool(folder), "-o", folder / "run", *ARGS)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def unended(run: Path) -> str:
    """Make a run's record what a kill leaves; returns how it was."""
    ended = (run / STATUS).read_text()
    (run / STATUS).write_text(json.dumps({**json.loads(ended), "verdict": None}))
    return ended


def test_a_finished_run_says_what_it_measured_its_verdict_and_what_goes_on(finished):
    lines = [json.loads(line) for line in (finished / "scores.jsonl").read_text().splitlines()]
    found = json.loads(cli("status", finished, "--json").stdout)
    assert (found["state"], found["merges"], found["unit"]) == ("finished", 3, "tokens")
    assert found["by_method"] == {"base": 1, "dare": 2}
    assert found["n_scored"] == mergeplan.status(finished).n_scored > 0
    assert found["seconds"] == pytest.approx(sum(sum(line["seconds"]) for line in lines))
    verdict = found["verdict"]
    assert verdict["headline"].startswith("verdict for `macro`: ")
    assert (verdict["exit_code"], found["next"][:10]) == (0, "mergeplan ")
    said = cli("status", finished).stdout
    assert said.startswith(f"{finished}: finished\nmeasured: 3 merges, {found['n_scored']:,} tok")
    assert verdict["text"] in said
    assert f"\nnext: {found['next']}\n" in said + "\n"


def test_a_stopped_run_says_the_command_and_where_it_was_given(finished, tmp_path):
    ended = unended(finished)
    try:
        said = cli("status", finished, cwd=tmp_path).stdout
    finally:
        (finished / STATUS).write_text(ended)
    pool = finished.parent / "pool.yml"
    again = shlex.join(["mergeplan", "calibrate", str(pool), "-o", str(finished), *ARGS])
    assert said.startswith(f"{finished}: stopped\n")
    assert said.endswith(f"its end\nnext: {again}\n  in the folder {Path.cwd()}\n")


def test_a_run_at_work_is_told_by_its_lock_and_not_disturbed(finished):
    ended = unended(finished)
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    try:
        with lock(finished, "calibration"):
            found = mergeplan.status(finished)
        assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before
    finally:
        (finished / STATUS).write_text(ended)
    assert (found.state, found.next_command, found.merges) == ("at work", "", 3)
    assert "no verdict yet: it comes when the run ends" in found.summary()
    assert mergeplan.status(finished).state == "finished"


def test_a_run_of_before_and_a_folder_that_is_no_run(finished, tmp_path):
    ended = (finished / STATUS).read_text()
    (finished / STATUS).unlink()
    try:
        found = mergeplan.status(finished)
    finally:
        (finished / STATUS).write_text(ended)
    assert (found.state, found.next_command) == ("stopped", "")
    assert "`mergeplan calibrate` with the same options goes on" in found.summary()
    for folder in (tmp_path, tmp_path / "absent"):
        refused = cli("status", folder)
        assert refused.returncode == 1
        assert f"error: `{folder}` is no run of `mergeplan calibrate`" in refused.stderr
