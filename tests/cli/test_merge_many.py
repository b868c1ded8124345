"""`merge --many`: every merge of a list in one pass, each what it is alone."""

import json
import shutil

import pytest

from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import subset_merge, write_subsets
from tests.support.checkpoints import weights_of
from tests.support.commands import cli, cli_process

SUBSETS = [("js",), ("js", "md"), ("html", "js", "perl")]


@pytest.fixture
def sweep(demo_pool, tmp_path):
    """`subsets.csv` over three methods, one of them random, and the base."""
    pool_file = tmp_path / "pool.yml"
    names = sorted({name for subset in SUBSETS for name in subset})
    experts = {name: str(demo_pool / name) for name in names}
    methods = {"average": {}, "ties": {"density": 0.3}, "dare": {"density": 0.5}}
    size = {"base": str(demo_pool / "base"), "experts": experts}
    pool_file.write_text(json.dumps({"sizes": [size], "methods": methods}))
    pool = load_pool(pool_file)
    merges = [subset_merge(pool, 0, label, s, seed=7) for label in methods for s in SUBSETS]
    write_subsets(tmp_path / "subsets.csv", [subset_merge(pool, 0, "average", ()), *merges], pool)
    return tmp_path, merges


def test_each_output_is_that_of_a_merge_of_its_own(sweep):
    folder, merges = sweep
    run = cli("merge", "--many", folder / "subsets.csv", folder / "out", "--json")
    assert run.returncode == 0, run.stderr
    reports = json.loads(run.stdout)["merges"]
    assert len(reports) == len(merges) + 1 == len(list((folder / "out").iterdir()))
    for merge in merges:
        alone = folder / "alone" / merge.key
        config = folder / "configs" / f"{merge.key}.yml"
        assert cli("merge", config, alone, "--random-seed", merge.seed).returncode == 0
        assert weights_of(folder / "out" / merge.key) == weights_of(alone)
        assert cli("verify", folder / "out" / merge.key).returncode == 0
    # Fewer bytes than one by one: inputs are gone over once for all subsets.
    one_by_one = sum(
        json.loads(cli("merge", c, folder / "x", "--overwrite", "--json").stdout)["read_bytes"]
        for c in sorted((folder / "configs").iterdir())
    )
    assert reports[0]["read_bytes"] < one_by_one


def test_a_stopped_run_goes_on_with_what_is_left(sweep):
    folder, merges = sweep
    command = ("merge", "--many", folder / "subsets.csv", folder / "out")
    assert cli(*command).returncode == 0
    expected = {merge.key: weights_of(folder / "out" / merge.key) for merge in merges}
    shutil.rmtree(folder / "out")
    for point in ("write:5:kill", "companions:3:kill", "publish:4:error"):
        stopped = cli_process(*command, env={"MERGEPLAN_FAULT": point})
        assert stopped.returncode != 0
        assert cli(*command).returncode == 1  # something is there: say what to do with it
        resumed = cli(*command, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert {key: weights_of(folder / "out" / key) for key in expected} == expected
        shutil.rmtree(folder / "out")


def test_faults_of_several_configs_are_said_in_one_run(sweep):
    folder, _ = sweep
    odd = sorted((folder / "configs").iterdir())[:2]
    texts = [path.read_text() for path in odd]
    for path, text in zip(odd, texts, strict=True):
        path.write_text(f"{text}\nodd: 1\n")
    run = cli("merge", "--many", folder / "subsets.csv", folder / "out")
    assert run.returncode == 1
    assert [f"error: `{path}`: unknown key `odd`\n" in run.stderr for path in odd] == [True, True]
    for path, text in zip(odd, texts, strict=True):
        path.write_text(text.replace("/base", "/no-base"))
    run = cli("merge", "--many", folder / "subsets.csv", folder / "out")
    assert run.stderr.count("no-base` is not a folder") == 1
    assert (
        f"error: `{odd[0]}`: model `" in run.stderr or f"error: `{odd[1]}`: model `" in run.stderr
    )
    assert not (folder / "out").exists()


def test_usage_and_a_list_at_fault(sweep):
    folder, _ = sweep
    csv = folder / "subsets.csv"
    assert cli("merge", "--many", csv).returncode == 2
    assert cli("merge", "--many", csv, "a", "b").returncode == 2
    text = csv.read_text()
    csv.write_text(text.replace(",1,js,", ",2,js,", 1))
    run = cli("merge", "--many", csv, folder / "out")
    assert run.returncode == 1
    assert "row" in run.stderr
    assert not (folder / "out").exists()
    # With and without the end of its line, as programs leave it.
    for head in (text.splitlines()[0], text.splitlines()[0] + "\n"):
        csv.write_text(head)
        for more in ([], ["--dry-run"], ["--json"]):
            run = cli("merge", "--many", csv, folder / "out", *more)
            assert run.returncode == 1
            assert f"`{csv}` lists no merges" in run.stderr
    assert not (folder / "out").exists()
