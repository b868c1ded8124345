"""Folders of somebody else are not taken over; of a run's own files, edited ones stay."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mergeplan
from mergeplan.calibration.identity import RunIdentity, models_of
from mergeplan.calibration.run_folder import NAMES, RunFolder, recorded_in
from mergeplan.calibration.store import RunStore
from mergeplan.checkpoints.beside import json_beside
from mergeplan.errors import InputError, SurroundingsError
from mergeplan.evaluation.measured import MeasuredMerge
from mergeplan.merging.merge import merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.shards import merge_shard, run_of
from mergeplan.pool.pool import Pool, PoolSize
from mergeplan.pool.subsets import SubsetMerge
from mergeplan.system.files import lock
from tests.robustness.test_writing import killed_in, mode_of, names_in, scores
from tests.support.commands import cli

IDENTITY = RunIdentity({}, {"the text of size 1": "0"}, {})
SAMPLE = ("sample", mergeplan.DEMO_POOL / "pool.yml", "--k", 1, "--method", "average", "-o")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", sorted({*NAMES} - {"run.json"}))
def test_a_folder_with_one_of_our_names_and_no_run_is_left_alone(name, tmp_path):
    (tmp_path / name).write_text("mine")
    for take in (recorded_in, lambda folder: RunFolder(folder, IDENTITY)):
        with pytest.raises(SurroundingsError, match=rf"no run, .* holds `{name}`") as caught:
            take(tmp_path)
        assert caught.value.hint
    assert content(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_all_that_a_run_writes_is_in_the_list_and_follows_the_umask(mask, tmp_path):
    run, before = tmp_path / "run", os.umask(mask)
    try:
        store = RunStore(run, IDENTITY, (2,))
        own = (
            "measurements.csv",
            "gradients.csv",
            "law.json",
            "law.png",
            "merge.yml",
            "held_back.jsonl",
            "report.html",
            "status.json",
        )
        for name in (*own, "geometry.json", "dtype.jsonl"):
            store.folder.place(name, "ours")
            (run / name).write_text("mine")
            store.folder.place(name, "ours")
        store.close()
    finally:
        os.umask(before)
    assert set(names_in(run)) == {*NAMES, "lock"}
    assert {mode_of(path) for path in run.iterdir()} == {0o666 & ~mask}
    assert mode_of(run) == 0o777 & ~mask


def test_a_run_json_of_somebody_else_is_no_run(tmp_path):
    (tmp_path / "run.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"run\.json"):
        RunFolder(tmp_path, IDENTITY)
    assert names_in(tmp_path) == ["run.json"]


def test_a_folder_with_other_files_may_become_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "lock").write_text("mine")
    RunFolder(tmp_path, IDENTITY).close()
    assert content(tmp_path)["notes.txt"] == b"mine"
    assert content(tmp_path)["lock"] == b"mine"
    assert recorded_in(tmp_path) == IDENTITY


def test_what_was_edited_stays_and_the_new_one_goes_beside_it(tmp_path):
    merge = tmp_path / "merge.yml"
    run = RunFolder(tmp_path, IDENTITY)
    assert run.place("merge.yml", "1") == merge
    run.close()
    run = RunFolder(tmp_path, IDENTITY)
    assert run.place("merge.yml", "2") == merge
    assert merge.read_text() == "2"
    assert not run.notes
    merge.write_text("mine")
    for text in ("3", "4"):
        assert run.place("merge.yml", text) == run.at("merge.yml") == tmp_path / "merge.new.yml"
        assert (merge.read_text(), run.at("merge.yml").read_text()) == ("mine", text)
    (note,) = run.notes
    assert f"`{merge}` was edited" in note
    assert f"`{tmp_path / 'merge.new.yml'}`" in note
    (tmp_path / "merge.new.yml").write_text("mine too")
    assert run.place("merge.yml", "5") == tmp_path / "merge.new2.yml"
    # One that is moved away gives its place back.
    merge.rename(tmp_path / "kept.yml")
    assert run.place("merge.yml", "6") == merge
    assert (tmp_path / "merge.new.yml").read_text() == "mine too"
    run.close()


def test_a_run_of_before_the_record_keeps_what_differs(tmp_path):
    run = RunFolder(tmp_path, IDENTITY)
    run.place("law.json", "same")
    run.place("merge.yml", "old")
    run.close()
    (tmp_path / "written.json").unlink()
    run = RunFolder(tmp_path, IDENTITY)
    assert run.place("law.json", "same") == tmp_path / "law.json"
    assert run.place("law.json", "next") == tmp_path / "law.json"
    assert run.place("merge.yml", "new") == tmp_path / "merge.new.yml"
    run.close()


@pytest.mark.parametrize("written", ["record", "file"])
def test_a_kill_between_record_and_file_makes_no_edit(written, tmp_path, monkeypatch):
    run = RunFolder(tmp_path, IDENTITY)
    run.place("merge.yml", "1")
    from mergeplan.calibration import run_folder

    real, calls = run_folder.write_durably, []

    def killed(path: Path, *args: object, **options: bool) -> None:
        calls.append(path.name)
        if written == "file":
            real(path, *args, **options)
        if path.name == "merge.yml":
            raise KeyboardInterrupt
        if written == "record":
            real(path, *args, **options)

    monkeypatch.setattr(run_folder, "write_durably", killed)
    with pytest.raises(KeyboardInterrupt):
        run.place("merge.yml", "2")
    run.close()
    assert calls == ["written.json", "merge.yml"]
    monkeypatch.undo()
    run = RunFolder(tmp_path, IDENTITY)
    assert run.place("merge.yml", "3") == tmp_path / "merge.yml"
    run.close()


@pytest.mark.parametrize("name", ["scores.jsonl", "merge.yml", "run.json", "written.json"])
@pytest.mark.parametrize("hard", [False, True])
def test_links_in_a_run_lead_nowhere(name, hard, tmp_path):
    run, victim = tmp_path / "run", tmp_path / "victim"
    store = RunStore(run, IDENTITY, (2,))
    store.folder.place("merge.yml", "1")
    store.close()
    path = run / name
    path.rename(victim)
    with victim.open("a") as file:
        file.write("torn" if name == "scores.jsonl" else "")
    before = victim.read_bytes()
    (path.hardlink_to if hard else path.symlink_to)(victim)
    if not hard or name == "scores.jsonl":
        with pytest.raises(SurroundingsError, match=re.escape(f"`{path}`")):
            RunStore(run, IDENTITY, (2,))
    else:
        store = RunStore(run, IDENTITY, (2,))
        store.folder.place("merge.yml", "2")
        store.close()
    assert victim.read_bytes() == before


def test_what_is_measured_while_a_model_changes_is_not_kept(tmp_path):
    model = tmp_path / "expert"
    shutil.copytree(mergeplan.DEMO_POOL / "js", model)
    pool = Pool((PoolSize(mergeplan.DEMO_POOL / "base", {"js": model}),), {}, {})
    identity = RunIdentity(models_of(pool), IDENTITY.texts, {})
    store = RunStore(tmp_path / "run", identity, (1,))
    merge = SubsetMerge(0, 80592.0, "average", "{}", ("js",), 0)
    measured = MeasuredMerge(merge, scores(), (1.0, 1.0))
    weights = model / "model.safetensors"
    weights.touch()
    store.add(measured)
    kept = (tmp_path / "run" / "scores.jsonl").read_bytes()
    assert kept.count(b"\n") == 1
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="expert `js` has changed"):
        store.add(measured)
    weights.unlink()
    with pytest.raises(InputError, match="No such file"):
        store.add(measured)
    store.close()
    assert (tmp_path / "run" / "scores.jsonl").read_bytes() == kept


def test_settings_that_change_under_their_length_and_time_are_read_anew(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    times = path.stat()
    assert json_beside(path) == {"a": 1}
    time.sleep(0.02)  # the kernel's clock for files goes in steps
    path.write_text('{"a": 2}')
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert json_beside(path) == {"a": 2}


def test_unfinished_files_do_not_pile_up_in_a_run(tmp_path):
    RunFolder(tmp_path, IDENTITY).close()
    for _ in range(3):
        killed_in(tmp_path)
    assert len(names_in(tmp_path)) == 2 + 3
    RunFolder(tmp_path, IDENTITY).close()
    assert names_in(tmp_path) == ["lock", "run.json"]


TAKE = """
import sys
from pathlib import Path
from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.store import RunStore
from mergeplan.errors import SurroundingsError
identity = RunIdentity({}, {"the text of size 1": "0"}, {})
print("ready", flush=True)
sys.stdin.readline()
try:
    store = RunStore(Path(sys.argv[1]), identity, (2,))
    print("works", flush=True)
except SurroundingsError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


def test_of_two_that_begin_in_one_folder_one_works_and_the_other_is_told(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, tmp_path / "run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]

    def told() -> list[str]:
        return [process.stdout.readline().strip() for process in started]

    def go_on() -> None:
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()

    assert told() == ["ready"] * 3
    go_on()
    busy = f"another calibration is working in `{tmp_path / 'run'}`"
    assert sorted(told()) == sorted([busy, busy, "works"])
    go_on()
    for process in started:
        process.communicate()


@pytest.mark.parametrize("place", ["shards", "shards/model.safetensors"])
def test_a_worker_follows_no_link_out_of_its_folder(place, tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "out.partial"
    for made in (victim, victim / "model.safetensors", (folder / place).parent):
        made.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "journal"):
        (victim / name if place != "shards" else victim / "model.safetensors" / name).touch()
    (folder / place).symlink_to(victim)
    (folder / "merge.json").touch()
    before = sorted(victim.rglob("*"))
    with pytest.raises(SurroundingsError, match=f"`{folder / place}` is a link"):
        merge_shard("model.safetensors", folder, 1, 1 << 28, run_of(folder))
    assert sorted(victim.rglob("*")) == before


def test_a_worker_that_is_late_leaves_the_folder_of_the_next_run_alone(tmp_path):
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / "merge.json").write_text("the first run")
    run = run_of(folder)
    (folder / "merge.json").rename(tmp_path / "old")
    (folder / "merge.json").write_text("the first run")
    with pytest.raises(SurroundingsError, match="by now that of another run"):
        merge_shard("model.safetensors", folder, 1, 1 << 28, run)
    assert names_in(folder) == ["merge.json"]


def test_no_folder_is_removed_while_a_worker_is_in_it(small_models, tmp_path):
    """A driver that was stopped before its first whole shard removes it, and so does --discard."""
    workers = []

    def stopped(checked, works, progress, watch):
        place = works[0].folder / "shards" / "model.safetensors"
        place.mkdir(parents=True)
        workers.append(lock(place, "worker"))
        raise KeyboardInterrupt

    models = [{"model": str(small_models / "a")}]
    config = {"merge_method": "passthrough", "models": models}
    wanted = [MergeRequest(config, tmp_path / "out")]
    with pytest.raises(KeyboardInterrupt):
        merge_many(wanted, runner=stopped)
    for more in ({"resume": True}, {"discard": True}):
        with pytest.raises(SurroundingsError, match="another worker is working"):
            merge_many(wanted, MergeOptions(**more))
    workers.pop().close()
    merge_many(wanted, MergeOptions(discard=True))
    assert names_in(tmp_path) == ["a", "b", "base", "out"]


def test_a_demo_replaces_nothing(tmp_path):
    for name in ("merge.yml", "merged"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        done = cli("demo", "-o", folder)
        assert (done.returncode, content(folder)) == (1, {name: b"mine"})
        assert f"`{folder / name}` exists" in done.stderr


def test_a_sample_takes_no_folder_of_somebody_else(tmp_path):
    first, other = tmp_path / "first", tmp_path / "other"
    assert cli(*SAMPLE, first).returncode == 0
    written = content(first)
    name = next(name for name in written if name.startswith("configs/"))
    (other / "configs").mkdir(parents=True)
    (other / name).write_text("mine")
    done = cli(*SAMPLE, other)
    assert (done.returncode, content(other)) == (1, {name: b"mine"})
    assert f"`{other / name}` exists" in done.stderr
    # What a run has left that was stopped before its list is the same as what it would write.
    (other / name).write_bytes(written[name])
    (other / "configs" / "notes.yml").write_text("mine")
    assert cli(*SAMPLE, other).returncode == 0
    assert content(other) == {**written, "configs/notes.yml": b"mine"}


def test_a_sample_grows_around_an_edited_yaml_and_refuses_to_lose_a_column(tmp_path):
    assert cli(*SAMPLE, tmp_path).returncode == 0
    name = next(name for name in content(tmp_path) if name.startswith("configs/"))
    (tmp_path / name).write_text("mine")
    assert cli(*SAMPLE, tmp_path, "--method", "task_arithmetic").returncode == 0
    assert content(tmp_path)[name] == b"mine"
    table = tmp_path / "subsets.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0] + ",note", *(f"{line},mine" for line in lines[1:])]))
    before = content(tmp_path)
    done = cli(*SAMPLE, tmp_path, "--method", "average")
    assert (done.returncode, content(tmp_path)) == (1, before)
    assert "column `note`" in done.stderr


def test_samples_that_grow_one_folder_at_once_lose_nothing(tmp_path):
    labels = ["average", "task_arithmetic"]
    command = [sys.executable, "-m", "mergeplan", *map(str, SAMPLE[:4]), "-o", tmp_path / "s"]
    started = [
        subprocess.Popen([*command, "--method", label], stderr=subprocess.DEVNULL)
        for label in labels
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    listed = (tmp_path / "s" / "subsets.csv").read_text()
    assert all(f",{label}," in listed for label in labels)


def test_a_bench_follows_no_link_of_its_models(tmp_path):
    bench = ("bench", "--shape", "tiny", "--methods", "linear", "--k", 1, "--rounds", 1)
    bench += ("--no-mergekit", "--dir", tmp_path / "b")
    assert cli(*bench).returncode == 0
    victim, weights = tmp_path / "victim", tmp_path / "b" / "e0" / "model.safetensors"
    weights.rename(victim)
    weights.symlink_to(victim)
    (weights.parent / "bench.json").write_text('{"recipe": "unfinished"}')
    before = victim.read_bytes()
    done = cli(*bench)
    assert (done.returncode, victim.read_bytes()) == (1, before)
    assert f"`{weights}`: it is a symbolic link" in done.stderr


def test_a_file_that_no_longer_holds_is_removed_and_an_edited_one_stays(tmp_path):
    folder = RunFolder(tmp_path, IDENTITY)
    for text, left in (("ours", False), ("mine", True)):
        folder.place("merge.yml", "ours")
        (tmp_path / "merge.yml").write_text(text)
        folder.withdraw("merge.yml")
        assert (tmp_path / "merge.yml").exists() == left
    folder.close()
