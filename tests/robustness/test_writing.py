"""Files that we write: whole, over nothing that is not to be replaced, through no link."""

import ast
import csv
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mergeplan
from mergeplan.errors import SurroundingsError
from mergeplan.evaluation.recording import append, columns_of
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.system import writing
from mergeplan.system.private import is_private
from tests.support.commands import cli

DEMO = mergeplan.DEMO_POOL
TABLE = DEMO / "measurements.csv"
METHOD = ("--method", "task_arithmetic")
# Each with the name of the file that it writes.
COMMANDS = {
    "init": (("init", DEMO, "-o"), "pool.yml"),
    "fit": (("fit", TABLE, *METHOD, "-o"), "law.json"),
    "plot": (("plot", TABLE, *METHOD, "-o"), "law.png"),
    "suggest": (
        ("suggest", TABLE, *METHOD, "--target-loss", 1.95, "--pool", DEMO / "pool.yml", "-o"),
        "merge.yml",
    ),
    "select": (("select", TABLE, *METHOD, "--pool", DEMO / "pool.yml", "-o"), "merge.yml"),
    "select --plot": (("select", TABLE, *METHOD, "--plot"), "choice.svg"),
    "similarity": (("similarity", DEMO / "pool.yml", "-o"), "geometry.json"),
    "similarity --plot": (("similarity", DEMO / "pool.yml", "--plot"), "geometry.png"),
}
QUICK = ("fit", "plot", "similarity")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=COMMANDS)
def command(request, few_measured):
    words, name = COMMANDS[request.param]
    few = request.param.startswith("select")
    return tuple(few_measured if few and word == TABLE else word for word in words), name


@pytest.fixture
def umask():
    """Sets the umask for a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_file_that_exists_stays_and_is_replaced_only_when_told(command, tmp_path):
    words, name = command
    out, other = tmp_path / name, tmp_path / "other name of the same file"
    mine = "sizes: mine" if words[0] == "init" else "mine"
    out.write_text(mine)
    out.chmod(0o640)
    os.link(out, other)
    beside = tmp_path / f"{name}.partial"
    beside.write_text("mine too")
    done = cli(*words, out)
    assert (done.returncode, out.read_text()) == (1, mine)
    assert f"`{out}` exists" in done.stderr
    done = cli(*words, out, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() != mine.encode()
    assert mode_of(out) == 0o640
    # A hard link is not written through, and no name is guessed at.
    assert (other.read_text(), beside.read_text()) == (mine, "mine too")
    assert names_in(tmp_path) == sorted([name, other.name, beside.name])


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "device"])
@pytest.mark.parametrize("which", QUICK)
def test_what_is_no_plain_file_is_refused_by_name(which, kind, tmp_path):
    words, name = COMMANDS[which]
    out, victim = tmp_path / name, tmp_path / "victim"
    expected = "a symbolic link" if "link" in kind else f"a {kind}"
    if "link" in kind:
        out.symlink_to(victim)
    if kind == "link":
        victim.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    elif kind == "pipe":
        os.mkfifo(out)
    elif kind == "device":
        if os.geteuid():
            pytest.skip("only root makes devices")
        os.mknod(out, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    done = cli(*words, out, "--overwrite")
    assert done.returncode == 1
    assert f"error: cannot write `{out}`: it is {expected}\n\nhint: " in done.stderr
    assert victim.exists() == (kind == "link")
    assert kind != "link" or victim.read_text() == "mine"


@pytest.mark.parametrize("which", QUICK)
def test_links_among_the_folders_are_followed(which, tmp_path):
    words, name = COMMANDS[which]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    done = cli(*words, tmp_path / "link" / name)
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path / "real") == [name]


def test_a_folder_that_is_not_there_is_named_before_the_work(command, tmp_path):
    words, name = command
    done = cli(*words, tmp_path / "none" / name)
    assert done.returncode == 1
    assert "there is no such folder" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("similarity", "pool.yml", "-o", "js/config.json"), "a part of `{}/js`, which is read"),
        (("similarity", "pool.yml", "-o", "x.svg", "--plot", "x.svg"), "hold two outputs"),
        (("suggest", "m.csv", "--pool", "pool.yml", "-o", "js/config.json"), "a part of `{}/js`"),
        (("select", "m.csv", "--pool", "pool.yml", "-o", "js/config.json"), "a part of `{}/js`"),
        (("select", "m.csv", "--pool", "pool.yml", "-o", "x.svg", "--plot", "x.svg"), "hold two"),
        (("select", "m.csv", "--pool", "pool.yml", "-o", "js.jsonl"), "`js.jsonl` is what is read"),
        (("fit", "run/measurements.csv", "-o", "run/run.json"), "`run/run.json` is what is read"),
        (
            ("select", "run/measurements.csv", "--pool", "pool.yml", "-o", "run/scores.jsonl"),
            "is what is read",
        ),
        (("report", "run", "-o", "run/report.html"), None),
    ],
)
def test_what_a_command_reads_is_never_replaced(words, told, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("run/measurements.csv", "run/scores.jsonl", "run/run.json", "run/report.html"):
        (tmp_path / name).write_text("mine")
    for name in ("js.jsonl", "x.svg", "m.csv"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "js").mkdir()
    (tmp_path / "js" / "config.json").write_text("mine")
    pool = "sizes: [{base: base, experts: {js: js}}]\ndata: {js: js.jsonl}\n"
    (tmp_path / "pool.yml").write_text(pool)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    run = cli(*words, "--overwrite", cwd=tmp_path)
    assert run.returncode == 1
    if told is None:  # the page of a run is no part of what is read; what is wrong is the run
        assert "which is read" not in run.stderr
        assert "is what is read" not in run.stderr
    else:
        assert told.format(tmp_path) in run.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_what_may_not_be_looked_into_stops_no_check(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "d.csv").touch()

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)  # root may look everywhere
    writing.refuse_existing(tmp_path / "d.csv", overwrite=True, inputs=[tmp_path / "m"])
    monkeypatch.setattr(Path, "exists", closed)
    writing.refuse_existing(tmp_path / "d.csv", overwrite=True, inputs=[tmp_path / "m"])


def test_a_folder_that_may_not_be_written_to_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write everywhere
    with pytest.raises(SurroundingsError, match="its folder may not be written to"):
        writing.refuse_existing(tmp_path / "new.csv", overwrite=True)
    with pytest.raises(SurroundingsError, match="its folder may not be written to"):
        columns_of(tmp_path / "new.csv", {})


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_new_files_and_folders_have_the_mode_that_the_umask_leaves(mask, umask, tmp_path):
    umask(mask)
    for words, name in map(COMMANDS.__getitem__, QUICK):
        assert cli(*words, tmp_path / name).returncode == 0
    sampled = cli("sample", DEMO / "pool.yml", "-o", tmp_path / "sample", "--k", 1, *METHOD)
    assert sampled.returncode == 0, sampled.stderr
    assert cli("demo", "-o", tmp_path / "demo").returncode == 0
    config = tmp_path / "demo" / "merge.yml"
    (tmp_path / "empty").mkdir()
    assert cli("merge", config, tmp_path / "empty", "--quiet").returncode == 0
    benched = cli(
        *("bench", "--shape", "tiny", "--methods", "linear", "--k", 1, "--rounds", 1),
        *("--no-mergekit", "--dir", tmp_path / "bench"),
    )
    assert benched.returncode == 0, benched.stderr
    append(tmp_path / "m.csv", scores(), {"k": "0", "options": "{}"}, data_hash="")
    found = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert len(found) > 40
    for path in found:
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert oct(mode_of(path)) == oct(expected), path


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "law.json"
    with pytest.raises(writing.ExistsError, match="exists"), writing.writing(out, replace=False):
        out.write_text("mine")
    assert (out.read_text(), names_in(tmp_path)) == ("mine", ["law.json"])


def without_hard_links(*_, **__):
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_hard_links_is_no_other_case(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", without_hard_links)
    test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path)
    writing.write_durably(tmp_path / "new", "ours", replace=False)
    assert (tmp_path / "new").read_text() == "ours"
    assert names_in(tmp_path) == ["law.json", "new"]


def test_a_link_that_appears_meanwhile_is_replaced_and_not_followed(tmp_path):
    out, victim = tmp_path / "law.json", tmp_path / "victim"
    victim.write_text("mine")
    with writing.writing(out, replace=True) as file:
        file.write(b"ours")
        out.symlink_to(victim)
    assert (victim.read_text(), out.read_text(), out.is_symlink()) == ("mine", "ours", False)


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), writing.writing(tmp_path / "a", replace=True):
        raise ZeroDivisionError
    assert names_in(tmp_path) == []


RACE = """
import sys
from pathlib import Path
from mergeplan.system.writing import ExistsError, write_durably
name, out = sys.argv[1], Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.read(1)
wins = 0
for number in range(100):
    try:
        write_durably(out / str(number), name * 10_000, replace=False)
        wins += 1
    except ExistsError:
        pass
print(wins)
"""


def together(script: str, *arguments: object, runs: int) -> list[str]:
    """What processes print that begin at one time; the first argument is each one's number."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(runs)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("x")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in started]


def test_of_those_that_race_for_a_name_one_gets_it(tmp_path):
    wins = together(RACE, tmp_path, runs=3)
    assert sum(map(int, wins)) == 100
    for path in tmp_path.iterdir():
        content = path.read_text()
        assert content == content[0] * 10_000
    assert len(names_in(tmp_path)) == 100


KILLED = """
import sys
from pathlib import Path
from mergeplan.system.writing import writing
with writing(Path(sys.argv[1]) / "law.json", replace=True) as file:
    file.write(b"half")
    file.flush()
    print("ready", flush=True)
    sys.stdin.read(1)
"""


def killed_in(folder: Path) -> None:
    """Kill a process while it writes a file there."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_kill_leaves_goes_from_a_folder_of_ours_and_nothing_else_does(tmp_path):
    killed_in(tmp_path)
    (left,) = names_in(tmp_path)
    assert is_private(left)
    theirs = [".mergeplan-notes.partial", "law.json.partial", ".mergeplan.partial"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    writing.remove_unfinished(tmp_path)
    assert names_in(tmp_path) == sorted(theirs)


def test_a_file_that_grows_is_looked_at_once_it_is_open(tmp_path):
    grows, victim = tmp_path / "scores.jsonl", tmp_path / "victim"
    with writing.open_own(grows, create=True) as file:
        file.write(b"1\n")
    with writing.open_own(grows, create=True) as file:
        file.write(b"2\n")
        file.seek(0)
        assert file.read() == b"1\n2\n"
    victim.write_text("mine")
    for name, make in {
        "symbolic link": lambda: grows.symlink_to(victim),
        "hard links": lambda: os.link(victim, grows),
        "pipe": lambda: os.mkfifo(grows),
        "folder": grows.mkdir,
    }.items():
        if grows.exists():
            grows.unlink()
        make()
        with pytest.raises(SurroundingsError, match=name):
            writing.open_own(grows, create=True)
        assert victim.read_text() == "mine"


def scores() -> Scores:
    """Of one domain with two documents."""
    tokens = np.array([2, 2], np.int64)
    return Scores({"code": DomainScores(np.arange(2), tokens, np.array([4.0, 6.0]))})


APPEND = """
import sys
from pathlib import Path
import numpy as np
from mergeplan.evaluation.recording import append, columns_of
from mergeplan.evaluation.scores import DomainScores, Scores
two = np.array([2, 2], np.int64)
scores = Scores({"code": DomainScores(two, two, np.array([4.0, 6.0]))})
name, out = sys.argv[1], Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.read(1)
for number in range(20):
    merge = {"k": "1", "subset": f"{name}-{number}", "method": "ties", "options": "{}"}
    append(out, scores, merge, data_hash="")
"""


@pytest.mark.parametrize("begun", [False, True])
def test_runs_that_add_to_one_table_keep_each_other_s_rows(begun, tmp_path):
    table = tmp_path / "measurements.csv"
    before = b"k,method,subset,domain,loss_nats,note\r\n0,base,,code,3.5,mine\r\n" if begun else b""
    if begun:
        table.write_bytes(before)
        table.chmod(0o640)
    together(APPEND, table, runs=3)
    assert table.read_bytes().startswith(before)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    added = [row["subset"] for row in rows if row["k"] == "1" and row["domain"] == "code"]
    assert sorted(added) == sorted(f"{name}-{number}" for name in range(3) for number in range(20))
    assert len(rows) == 3 * 20 * 2 + begun
    assert names_in(tmp_path) == ["measurements.csv"]
    assert not begun or mode_of(table) == 0o640


def test_a_table_that_another_program_holds_is_waited_for(tmp_path, monkeypatch):
    table = tmp_path / "m.csv"
    merge = {"k": "0", "options": "{}"}
    append(table, scores(), merge, data_hash="")
    monkeypatch.setattr(writing, "_PATIENCE_SECONDS", 0.2)
    with writing.holding(table), pytest.raises(SurroundingsError, match="another program is hold"):
        append(table, scores(), merge, data_hash="")


# Calls that change what is on the disk, and why they do not go through `system.writing`.
REASONS = {
    "system/writing.py": "it is what the others go through",
    "system/files.py": "folders, the lock, and what clears a folder of ours",
    "merging/workspace.py": "OUT.partial is ours, and held",
    "merging/workfolder.py": "makes OUT.partial, and removes it",
    "merging/publishing.py": "gives OUT.partial its name",
    "merging/companions.py": "folders in OUT.partial",
    "merging/shards.py": "a worker's folder in OUT.partial, held",
    "calibration/run_folder.py": "removes a file that the run wrote and nobody edited",
    "calibration/store.py": "cuts a torn line off the handle that `open_own` looked at",
    "tuning/folder.py": "the same",
    "planning/mergekit/companions.py": "a temporary folder",
    "bench/bench.py": "a temporary folder",
    "bench/models.py": "cuts a new file that `writing` has opened",
    "bench/processes.py": "a temporary folder",
    "display/figure.py": "into memory",
    "planning/mergekit/process.py": "its own standard output",
    "cli/streams.py": "the null device, in place of a closed stream",
    "system/reading.py": "opens to read",
    "system/descriptors.py": "opens the null device",
}
CHANGES = {
    *("write_text", "write_bytes", "savefig", "unlink", "rename", "renames", "rmtree", "rmdir"),
    *("mkdir", "makedirs", "symlink_to", "hardlink_to", "link", "touch", "truncate", "to_csv"),
    *("save_pretrained", "save_file", "copyfile", "copytree", "copy2", "mkstemp", "chmod"),
}


def changes_in(code: str) -> list[int]:
    """Lines that change what is on the disk."""
    found = []
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        on_os = getattr(getattr(call.func, "value", None), "id", "") == "os"
        words = [a.value for a in call.args if isinstance(a, ast.Constant)]
        words += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
        mode = any(re.fullmatch("[rwxab+t]*[wxa+][rwxab+t]*", str(word)) for word in words)
        of_a_path = name == "replace" and len(call.args) == 1 and not call.keywords
        if name in CHANGES or of_a_path or (name in ("open", "fdopen") and (mode or on_os)):
            found.append(call.lineno)
    return found


def test_whatever_writes_goes_one_way_or_has_a_reason():
    for line in ("path.open('r+b')", "open(p, mode='w')", "os.open(p, 0)", "path.replace(q)"):
        assert changes_in(line) == [1]
    assert changes_in("path.open('rb')\nopen(p)\n'a'.replace('a', 'b')\nreplace(a, b=1)") == []
    package = Path(mergeplan.__file__).parent
    found = {
        str(path.relative_to(package)): lines
        for path in package.rglob("*.py")
        if (lines := changes_in(path.read_text("utf-8")))
    }
    assert {name: lines for name, lines in found.items() if name not in REASONS} == {}
    assert set(REASONS) - set(found) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_line_that_a_full_disk_refuses_is_told_once(tmp_path):
    """A buffer would be written again by closing, whose error has no name."""
    refused = pytest.raises(SurroundingsError, match=r"cannot write .*points\.jsonl")
    with Path("/dev/full").open("a+b") as file, refused:
        writing.add_line(file, tmp_path / "points.jsonl", b"line")
