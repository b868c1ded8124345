"""`mergeplan calibrate`: from a pool to a recommendation, in one command that goes on."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from threading import Event

import pytest
import yaml

import mergeplan
from mergeplan.calibration import identity
from mergeplan.calibration.limits import Spending
from mergeplan.calibration.options import CalibrateOptions
from mergeplan.calibration.preflight import check_calibration
from mergeplan.calibration.run_folder import has_measured
from mergeplan.calibration.setup import Setup
from mergeplan.cli.merges_line import merges_text
from mergeplan.pool.pool import load_pool
from mergeplan.system.files import lock
from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.commands import COMMAND, cli
from tests.support.pools import NAMES, write_pool
from tests.support.settings import DEMO_POOL
from tests.support.shares import spread

pytestmark = pytest.mark.timeout(300)
ARGS = ("--quiet", "-j", "1")


def calibrate(pool: Path, run: Path, *more: object, **options):
    return cli("calibrate", pool, "-o", run, *ARGS, *more, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A pool's folder with a run that has ended, in `run`."""
    folder = tmp_path_factory.mktemp("calibrated")
    done = calibrate(write_pool(folder), folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_command_leads_to_a_recommendation_that_merges(finished, tmp_path):
    run = finished / "run"
    done = calibrate(finished / "pool.yml", run, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["n_measured"], found["n_kept"]) == (0, len(rows_of(run)) // 3)
    assert found["reached"]
    assert found["next"] == f"mergeplan merge {run / 'merge.yml'} OUT_DIR"
    for name in ("law.json", "law.png", "measurements.csv", "merge.yml", "report.html"):
        assert (run / name).stat().st_size > 0
    assert cli("merge", run / "merge.yml", tmp_path / "out").returncode == 0
    chosen = found["verdict"]["chosen"]
    assert chosen["measured"]
    macros = [float(row["loss_nats"]) for row in rows_of(run) if row["domain"] == "macro"]
    assert chosen["value"] == pytest.approx(min(macros), abs=1e-8)
    # The verdict's merge was measured: the written one has the loss that the table says.
    data = finished / "texts"
    scored = cli("evaluate", tmp_path / "out", "--data", data, "--dtype", "float32", "--json")
    config = yaml.safe_load((run / "merge.yml").read_text())
    names = sorted(Path(entry["model"]).name for entry in config["models"])
    same = [
        row
        for row in rows_of(run)
        if row["subset"] == "+".join(names)
        and row["method"] == chosen["method"]
        and json.loads(row["options"]) == chosen["options"]
    ]
    losses = json.loads(scored.stdout)["scores"]
    assert len(same) == 3
    for row in same:
        loss = losses[row["domain"]]["loss_nats"]
        assert loss == pytest.approx(float(row["loss_nats"]), abs=1e-5)


def test_base_singles_and_all_are_measured_and_lambda_is_scanned(finished):
    rows = [row for row in rows_of(finished / "run") if row["domain"] == "macro"]
    by_method: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    assert [row["k"] for row in by_method.pop("base")] == ["0"]
    for found in by_method.values():
        assert sum(row["k"] == "1" for row in found) == 5
        all_five = [
            json.loads(row["options"]).get("lambda", 1.0) for row in found if row["k"] == "5"
        ]
        assert {0.2, 0.3, 0.5, 0.8, 1.0} <= set(all_five)
    assert {row["pool_size"] for row in rows} == {"5"}
    assert len({row["data_hash"] for row in rows}) == 1


def test_a_dry_run_forecasts_and_writes_nothing(tmp_path):
    pool = write_pool(tmp_path)
    done = calibrate(pool, tmp_path / "run", "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert 20 <= found["least"]["merges"] <= found["most"]["merges"] == 1 + 2 * (31 + 4)
    assert found["least"]["tokens"] > 0
    words = calibrate(pool, tmp_path / "run", "--dry-run").stdout.splitlines()
    assert words[0] == f"at least: {found['least']['merges']} merges, " + (
        f"{found['least']['tokens']:,.0f} tokens"
    )
    assert words[-1] == "time is known once the first merges are measured"
    assert not (tmp_path / "run").exists()


def test_a_torn_last_line_is_measured_again(finished, tmp_path):
    """What a kill in the middle of a write leaves."""
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    scores = run / "scores.jsonl"
    scores.write_bytes(scores.read_bytes()[:-20])
    done = calibrate(finished / "pool.yml", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_measured"] == 1
    for name in ("measurements.csv", "law.json", "merge.yml"):
        assert (run / name).read_bytes() == (finished / "run" / name).read_bytes(), name


def test_what_was_edited_in_a_run_stays(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    ours = (run / "merge.yml").read_bytes()
    (run / "merge.yml").write_text("mine")
    done = cli("calibrate", finished / "pool.yml", "-o", run, "-j", 1)
    assert done.returncode == 0, done.stderr
    assert (run / "merge.yml").read_text() == "mine"
    assert (run / "merge.new.yml").read_bytes() == ours
    assert f"warning: `{run / 'merge.yml'}` was edited since it was written, and st" in done.stderr
    assert f"next: mergeplan merge {run / 'merge.new.yml'} OUT_DIR" in done.stdout
    assert f"\nreport: {run / 'report.html'}, for a browser\n" in done.stdout


def test_a_folder_that_is_no_run_is_not_taken_over(finished, tmp_path):
    (tmp_path / "measurements.csv").write_text("k,loss_nats\n1,2.5\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for more in ((), ("--dry-run",)):
        done = calibrate(finished / "pool.yml", tmp_path, *more)
        assert done.returncode == 1
        assert "no run, since it has no `run.json`, and it holds `measurements.csv`" in done.stderr
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_models_that_are_copied_or_touched_go_on_and_one_that_changed_under_its_times_does_not(
    finished, tmp_path, monkeypatch
):
    """Content decides, and is read only where a file looks changed."""
    folder, run = tmp_path, tmp_path / "run"
    shutil.copytree(DEMO_POOL, folder / "models")  # other inodes, times of their own
    shutil.copytree(finished / "run", run)
    experts = {name: str(folder / "models" / name) for name in NAMES}
    pool = write_pool(folder, sizes=[{"base": str(folder / "models" / "base"), "experts": experts}])
    weights = folder / "models" / "js" / "model.safetensors"
    read: list[Path] = []
    hashed = identity._hash_file

    def counted(path: Path, **options: Event) -> str:
        read.append(path)
        return hashed(path, **options)

    monkeypatch.setattr(identity, "_hash_file", counted)
    for again in (True, False):
        read.clear()
        done = calibrate(pool, run, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["n_measured"] == 0
        assert bool(read) == again
    assert rows_of(run) == rows_of(finished / "run")
    weights.touch()
    assert calibrate(pool, run).returncode == 0
    assert read == [weights]
    before, times = (run / "scores.jsonl").read_bytes(), weights.stat()
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    for more in ((), ("--dry-run",)):
        refused = calibrate(pool, run, *more)
        assert refused.returncode == 1
        assert "expert `js` has changed since the run" in refused.stderr
    assert (run / "scores.jsonl").read_bytes() == before


@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_table(finished, tmp_path):
    pool, run = finished / "pool.yml", tmp_path / "run"
    scores = run / "scores.jsonl"
    command = [*COMMAND, "calibrate", pool, "-o", run, *ARGS]
    rng = random.Random(0)
    kills = 0
    while kills < 10:
        before = scores.stat().st_size if scores.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # At any moment from the first new byte on, in the middle of a line as well.
        while process.poll() is None and (not scores.exists() or scores.stat().st_size == before):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break  # it was done: there is nothing left to kill
        kills += 1
        with scores.open("ab") as file:
            file.write(b'{"merge": {"size"')
    assert kills >= 5
    assert calibrate(pool, run).returncode == 0
    for name in ("measurements.csv", "law.json", "merge.yml"):
        assert (run / name).read_bytes() == (finished / "run" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("number", "code"), spread([(signal.SIGINT, 130), (signal.SIGTERM, 143)], 1)
)
def test_a_stopped_run_says_how_it_goes_on(tmp_path, number, code):
    pool, run = write_pool(tmp_path), tmp_path / "run"
    command = [*COMMAND, "calibrate", pool, "-o", run, *ARGS]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not has_measured(run):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    assert f"what is measured stays in `{run}`; this goes on:\n" in errors
    assert f"this goes on:\n  mergeplan calibrate {pool} -o {run} --quiet -j 1\n" in errors
    assert "Traceback" not in errors


def test_a_run_that_is_stopped_before_it_measured_anything_says_so(tmp_path, monkeypatch):
    def stop(*_):
        raise SystemExit(143)

    pool, run = write_pool(tmp_path), tmp_path / "run"
    for place in ("settle", "record_status"):  # before there is a run, and when it has just begun
        with monkeypatch.context() as patch:
            patch.setattr(f"mergeplan.calibration.calibrate.{place}", stop)
            done = calibrate(pool, run)
        assert done.returncode == 143
        assert done.stderr.startswith("stopped before a merge was measured; this begins again:\n")


def test_a_budget_ends_it_and_more_of_it_goes_on(tmp_path):
    pool, run = write_pool(tmp_path), tmp_path / "run"
    assert calibrate(pool, run, "--budget", "8 merges", "--method", "dare").returncode == 0
    assert len(rows_of(run)) == 3 * 8
    few = (run / "measurements.csv").read_text().splitlines()
    assert calibrate(pool, run, "--budget", "12 merges", "--method", "dare").returncode == 0
    assert len(rows_of(run)) == 3 * 12
    assert set(few) <= set((run / "measurements.csv").read_text().splitlines())


def test_a_list_of_subsets_is_measured_and_nothing_else(tmp_path):
    pool, run = write_pool(tmp_path), tmp_path / "run"
    listed = cli("sample", pool, "-o", tmp_path / "list", "--k", "1,2,4", "--no-lambda-scan")
    assert listed.returncode == 0, listed.stderr
    subsets = tmp_path / "list" / "subsets.csv"
    assert calibrate(pool, run, "--subsets", subsets).returncode == 0
    with subsets.open(newline="") as file:
        wanted = [(row["method"], row["subset"]) for row in csv.DictReader(file)]
    found = [(r["method"], r["subset"]) for r in rows_of(run) if r["domain"] == "macro"]
    assert sorted(found) == sorted(wanted)
    (tmp_path / "other").mkdir()
    sizes = json.loads(pool.read_text())["sizes"]
    del sizes[0]["experts"]["js"]
    other = write_pool(tmp_path / "other", sizes=sizes)
    refused = calibrate(other, tmp_path / "other" / "run", "--subsets", subsets)
    assert refused.returncode == 1
    assert "another pool" in refused.stderr
    subsets.write_text(subsets.read_text().splitlines()[0])
    refused = calibrate(pool, tmp_path / "none", "--subsets", subsets)
    assert refused.returncode == 1
    assert "lists no merges" in refused.stderr
    assert not (tmp_path / "none").exists()


def change_expert(folder: Path) -> Path:
    target = folder / "html"
    tensors = load_tensors(Path(json.loads((folder / "pool.yml").read_text())["sizes"][0]["base"]))
    save_checkpoint(target, tensors)
    data = json.loads((folder / "pool.yml").read_text())
    data["sizes"][0]["experts"]["html"] = str(target)
    return write_pool(folder, sizes=data["sizes"])


def change_text(folder: Path) -> Path:
    pool = write_pool(folder)
    with (folder / "texts" / "html.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    return pool


def add_groups(folder: Path) -> Path:
    pool = write_pool(folder)
    path = folder / "texts" / "html.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps({**line, "group": "a"}) + "\n" for line in lines))
    return pool


CHANGES = {
    "an expert": (change_expert, (), "expert `html` has changed"),
    "a text": (change_text, (), "the pool's text has changed since the run"),
    "groups": (add_groups, (), "the data now carries `group`, and the halves of the run in"),
    "an option": (write_pool, ("--max-tokens", "50"), "`--max-tokens` was not given in"),
    "arithmetic": (write_pool, ("--dtype", "bfloat16"), "`--dtype` was auto in"),
    "adapters": (write_pool, ("--lora-exact",), "`--lora-exact` was not given in"),
}


def test_what_changed_is_named_and_never_mixed(tmp_path):
    run = tmp_path / "run"
    first = calibrate(write_pool(tmp_path), run, "--budget", "2 merges", "--method", "dare")
    # Too few to fit anything to, and a verdict all the same.
    assert "verdict for `macro`" in first.stdout
    assert (run / "merge.yml").is_file()
    before = (run / "scores.jsonl").read_bytes()
    for what, (change, more, message) in CHANGES.items():
        refused = calibrate(change(tmp_path), run, *more)
        assert refused.returncode == 1, what
        assert message in refused.stderr
        assert (run / "scores.jsonl").read_bytes() == before
        write_pool(tmp_path)


def test_it_is_said_where_documents_stand_for_themselves(tmp_path):
    def warnings(pool: Path) -> tuple[str, ...]:
        return check_calibration(load_pool(pool), ("dare",), Setup()).warnings

    assert [one for one in warnings(write_pool(tmp_path)) if "no document has a `group`" in one]
    assert not [one for one in warnings(add_groups(tmp_path)) if "group" in one]


def test_two_runs_do_not_share_a_folder(tmp_path):
    pool, run = write_pool(tmp_path), tmp_path / "run"
    run.mkdir()
    with lock(run, "calibration"):
        refused = calibrate(pool, run)
    assert refused.returncode == 1
    assert "another calibration is working" in refused.stderr


def test_progress_never_goes_back_and_a_run_that_goes_on_does_not_repeat_itself(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    lines = (run / "scores.jsonl").read_bytes().splitlines(keepends=True)
    (run / "scores.jsonl").write_bytes(b"".join(lines[:-1]))
    said: list[str] = []
    told: list[tuple[Spending, Spending]] = []
    shares: list[float] = []
    done = mergeplan.calibrate(
        finished / "pool.yml",
        run,
        CalibrateOptions(setup=Setup(threads=1)),
        say=said.append,
        progress=lambda scored, most: shares.append(scored / most),
        each_merge=lambda *both: told.append(both),
    )
    assert (done.n_measured, done.n_kept) == (1, len(lines) - 1)
    assert said[0] == f"going on: {len(lines) - 1} merges are measured already"
    assert not [text for text in said if "first round" in text and "27 merges" in text]
    assert sum("to narrow it" in text or "the verdict asks" in text for text in said) == 1
    assert [(most.merges, most.tokens) for _, most in told] == [(71, told[0][1].tokens)] * len(told)
    assert told[-1][0].merges == len(lines)
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_the_line_says_merges_and_tokens_of_the_most_there_can_be():
    done, most = Spending(12, 3e4), Spending(48, 12e4)
    said = merges_text(done, most, "items", 1e4, 5.0)
    assert said == " 25 %  12 of 48 merges at most, 30,000 items  2,000/s  45 s left at most"
    assert merges_text(done, most, "items") == " 25 %  12 of 48 merges at most, 30,000 items"
