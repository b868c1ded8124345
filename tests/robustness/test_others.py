"""What is not ours is never replaced, emptied or written through, whenever it appears."""

import json
import os
import shutil
import signal
import stat
import sys

import pytest

from mergeplan.system.private import is_private, private_name
from tests.support.runs import contents, end, run, start_halted, succeed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops processes, and looks")


# Of a safetensors file whose tensors were cut off, or that has none.
HEADER = (2).to_bytes(8, "little") + b"{}"


@pytest.fixture
def cwd(small, tmp_path):
    return small.place(tmp_path / "w", "linear")


@pytest.fixture
def expected(small):
    return small("linear")[0]


@pytest.fixture
def halted(cwd):
    """Runs a merge up to a point, does something there, and lets it go on."""

    def at(point: str, meanwhile, *args: object):
        process = start_halted(cwd, *args, at=f"{point}:1")
        try:
            meanwhile()
        finally:
            process.send_signal(signal.SIGCONT)
        return end(process)

    return at


def thesis(folder):
    folder.mkdir(exist_ok=True)
    (folder / "thesis.txt").write_text("mine")


def is_mine(folder) -> bool:
    return (folder / "thesis.txt").read_text() == "mine"


def listed(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("point", "there"), [("begin", True), ("write", False), ("publish", False), ("publish", True)]
)
def test_what_appears_in_the_output_is_kept(point, there, cwd, expected, halted):
    out = cwd / "out"
    if there:
        out.mkdir()
    ended = halted(point, lambda: thesis(out))
    assert ended.code == 1
    assert f"{out}/thesis.txt` was made or changed by another program" in ended.stderr
    assert "out.partial`; `mergeplan merge c.yml out --resume` goes on" in ended.stderr
    assert listed(out) == ["thesis.txt"]
    assert is_mine(out)
    out.rename(cwd / "mine")
    succeed(cwd, "--resume")
    assert contents(out) == expected
    assert listed(cwd) == ["c.yml", "mine", "out"]


@pytest.mark.parametrize("kind", ["file", "broken link", "link to a folder"])
def test_a_file_or_a_link_in_place_of_the_output_is_kept(kind, cwd, halted):
    out = cwd / "out"

    def appear():
        if kind == "file":
            out.write_text("mine")
        else:
            out.symlink_to("nowhere" if kind == "broken link" else ".")

    ended = halted("publish", appear)
    assert ended.code == 1
    assert f"`{out}` was made or changed by another program" in ended.stderr
    assert out.read_text() == "mine" if kind == "file" else out.is_symlink()
    assert listed(cwd) == ["c.yml", "out", "out.partial"]


@pytest.mark.parametrize(("there", "mode"), [("empty", 0o700), ("empty", 0o555), ("full", 0o2775)])
def test_the_output_keeps_the_mode_of_its_folder(there, mode, cwd):
    out = cwd / "out"
    out.mkdir()
    if there == "full":
        (out / "model.safetensors").write_bytes(HEADER)
    out.chmod(mode)
    succeed(cwd, "--overwrite")
    assert stat.S_IMODE(out.stat().st_mode) == mode
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "thesis.txt",
            "mine.safetensors",
            "notes/thesis.txt",
            "config.json/thesis.txt",
            "setup.py",
        ),
        *("lost+found/thesis.txt", ".mergeplan.partial/thesis.txt", ".mergeplan-0123456789abcdef"),
    ],
)
def test_overwrite_replaces_models_alone(name, cwd, expected):
    out = cwd / "out"
    succeed(cwd)
    first = (out / name).relative_to(out).parts[0]
    if (out / first).exists():
        (out / first).unlink()
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = contents(out)
    for more in ([], ["--dry-run"]):
        ended = run(cwd, "--overwrite", *more)
        assert ended.code == 1
        assert f"holds `{name}`, which is no part of a model" in ended.stderr
    assert contents(out) == before
    assert listed(cwd) == ["c.yml", "out"]
    if "/" in name:
        shutil.rmtree(out / first)
    else:
        (out / name).unlink()
    succeed(cwd, "--overwrite")
    assert contents(out) == expected


@pytest.mark.parametrize("name", ["README.md", "config.json", "vocab.txt"])
def test_a_folder_without_weights_is_no_model(name, cwd):
    (cwd / "out").mkdir()
    (cwd / "out" / name).write_text("mine")
    ended = run(cwd, "--overwrite")
    assert ended.code == 1
    assert f"holds `{name}`, and no weights of a model" in ended.stderr
    assert "pass `--overwrite`" not in run(cwd).stderr
    assert (cwd / "out" / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"mergeplan_manifest.json": b"x\n"}, "`mergeplan_manifest.json`, and no weights"),
        ({"model.safetensors": b"my notes"}, "`model.safetensors`, which does not begin as"),
        ({"model.safetensors": b"my notes on a merge\n" * 9}, "`model.safetensors`, which"),
        ({"model.safetensors": (9).to_bytes(8, "little") + b"my notes!"}, "which does not begin"),
        ({"pytorch_model.bin": b"my notes"}, "`pytorch_model.bin`, which does not begin as"),
        ({"model.safetensors": HEADER, "pytorch_model.bin": b"my notes"}, "`pytorch_model.bin`"),
        ({"model.safetensors": b""}, "`model.safetensors`, and no weights"),
        ({"model.safetensors.index.json": b"{}"}, "`model.safetensors.index.json`, and no weights"),
    ],
)
def test_the_name_of_a_model_s_file_is_no_proof(content, told, cwd):
    (cwd / "out").mkdir()
    for name, data in content.items():
        (cwd / "out" / name).write_bytes(data)
    before = contents(cwd / "out")
    ended = run(cwd, "--overwrite")
    assert ended.code == 1
    assert told in ended.stderr
    assert "if it is a damaged output, remove it" in ended.stderr
    assert contents(cwd / "out") == before


@pytest.mark.parametrize("damage", ["manifest", "cut header", "cut tensors"])
def test_a_damaged_output_is_replaced_by_what_is_whole_of_it(damage, cwd, expected):
    succeed(cwd)
    weights = next((cwd / "out").glob("*.safetensors"))
    if damage == "manifest":
        (cwd / "out" / "mergeplan_manifest.json").write_text("x")
    else:
        data = weights.read_bytes()
        weights.write_bytes(data[:20] if damage == "cut header" else data[:-20])
    succeed(cwd, "--overwrite")
    assert contents(cwd / "out") == expected


def test_a_large_folder_is_refused_at_its_first_file(tmp_path, monkeypatch):
    from mergeplan.errors import SurroundingsError
    from mergeplan.merging import replacing
    from mergeplan.merging.publishing import refuse_occupied

    for name in (".bashrc", "deep/er/thesis.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(replacing, "walk", lambda _: pytest.fail("looked into folders"))
    for overwrite in (False, True):
        with pytest.raises(SurroundingsError):
            refuse_occupied(tmp_path, [], overwrite=overwrite)


def test_overwrite_replaces_what_loaders_and_merges_know(cwd, expected):
    out = cwd / "out"
    for name in (
        *("model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"),
        *("pytorch_model.bin.index.json", "diffusion_pytorch_model.fp16.safetensors"),
        *("consolidated.safetensors", "adapter_model.safetensors", "tokenizer.model"),
        *("vocab.txt", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
        *("generation_config.json", "README.md", "mergekit_config.yml", "own.py", "lib/own.py"),
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("")
    (out / "model.safetensors").write_bytes(HEADER)
    (out / "pytorch_model.bin").write_bytes(b"PK\x03\x04 and what was cut off")
    (out / "config.json").write_text('{"auto_map": {"AutoModel": "own.Model"}}')
    (out / "own.py").write_text("from .lib import own\nfrom .lib.own import *\n")
    succeed(cwd, "--overwrite")
    assert contents(out) == expected


@pytest.mark.parametrize("change", ["new", "known", "edited", "deeper", "gone"])
def test_what_came_in_since_the_start_is_not_replaced(change, cwd, expected, halted):
    out = cwd / "out"
    succeed(cwd)

    def meanwhile():
        if change == "new":
            thesis(out)
        elif change == "known":
            (out / "vocab.txt").write_text("mine")
        elif change == "edited":
            (out / "README.md").write_text("mine")
        elif change == "deeper":
            thesis(out / "notes")
        else:
            shutil.rmtree(out)

    before = contents(out)
    ended = halted("publish", meanwhile, "--overwrite")
    if change == "gone":
        assert ended.code == 0
        assert contents(out) == expected
        return
    assert ended.code == 1
    assert "was made or changed by another program" in ended.stderr
    found = contents(out)
    differing = {name for name in {*found, *before} if found.get(name) != before.get(name)}
    assert len(differing) == 1


def test_what_came_in_at_the_last_moment_is_exchanged_back(tmp_path, monkeypatch):
    from mergeplan import _native
    from mergeplan.errors import SurroundingsError
    from mergeplan.merging.publishing import publish
    from mergeplan.merging.replacing import seen_in

    data, out = tmp_path / "data", tmp_path / "out"
    for folder, text in ((data, "new"), (out, "old")):
        folder.mkdir()
        (folder / "config.json").write_text(text)
    before = seen_in(out)
    exchange = _native.exchange

    def late(a, b):
        thesis(out)
        monkeypatch.setattr(_native, "exchange", exchange)
        exchange(a, b)

    monkeypatch.setattr(_native, "exchange", late)
    with pytest.raises(SurroundingsError, match=r"thesis.txt` was made or changed"):
        publish(data, out, before)
    assert is_mine(out)
    assert (out / "config.json").read_text() == "old"
    assert (data / "config.json").read_text() == "new"


def foreign_folder(place):
    thesis(place)


def foreign_link(place):
    thesis(place.with_name("victim"))
    place.symlink_to("victim")


def foreign_file(place):
    place.write_text("mine")


def foreign_record(place):
    thesis(place)
    (place / "merge.json").write_text('{"mine": 1}')


def foreign_fifo(place):
    place.mkdir()
    os.mkfifo(place / "merge.json")


@pytest.mark.parametrize(
    "make", [foreign_folder, foreign_link, foreign_file, foreign_record, foreign_fifo]
)
def test_a_work_folder_that_is_not_ours_is_left_alone(make, cwd):
    make(cwd / "out.partial")
    before, names = contents(cwd), listed(cwd)
    for more in ([], ["--resume"], ["--discard"]):
        ended = run(cwd, *more)
        assert ended.code == 1
        assert "out.partial` " in ended.stderr
        assert contents(cwd) == before
        assert listed(cwd) == names


@pytest.mark.parametrize("place", ["", "data"])
@pytest.mark.parametrize("more", ["--resume", "--discard"])
def test_what_is_put_into_our_work_folder_is_kept(place, more, cwd, expected):
    assert run(cwd, fault="journal:3:kill").code == -signal.SIGKILL
    mine = cwd / "out.partial" / place / "thesis.txt"
    mine.write_text("mine")
    ended = run(cwd, more)
    assert ended.code == 1
    assert f"`{mine}` was not made by mergeplan" in ended.stderr
    assert mine.read_text() == "mine"
    mine.rename(cwd / "thesis.txt")
    succeed(cwd, more)
    assert contents(cwd / "out") == expected
    assert listed(cwd) == ["c.yml", "out", "thesis.txt"]


def test_what_is_put_there_while_it_works_is_kept(cwd, halted):
    mine = cwd / "out.partial" / "data" / "thesis.txt"
    ended = halted("write", lambda: mine.write_text("mine"))
    assert ended.code == 1
    assert f"`{mine}` was not made by mergeplan" in ended.stderr
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("point", ["write", "published"])
def test_what_is_put_beside_our_data_stays(point, cwd, expected, halted):
    work = cwd / "out.partial"

    def meanwhile():
        thesis(work)
        thesis(work / "mine")

    ended = halted(point, meanwhile)
    assert ended.code == 0
    assert contents(cwd / "out") == expected
    assert f"`{work}` stays: it holds what mergeplan did not put there" in ended.stderr
    assert listed(work) == ["mine", "thesis.txt"]
    assert is_mine(work)
    assert is_mine(work / "mine")


def test_an_empty_work_folder_may_be_used(cwd, expected):
    (cwd / "out.partial").mkdir()
    assert run(cwd).code == 1
    succeed(cwd, "--resume")
    assert contents(cwd / "out") == expected


@pytest.mark.parametrize("point", ["write", "companions", "publish"])
def test_a_marker_of_publishing_publishes_nothing_unfinished(point, cwd, expected):
    assert run(cwd, fault=f"{point}:1:kill").code == -signal.SIGKILL
    work = cwd / "out.partial"
    names = json.dumps(["model.safetensors", "mergeplan_manifest.json"])
    (work / "publishing").write_text(f'{{"names": {names}, "replaced": {{}}}}')
    with (work / "data" / "model.safetensors").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"??")
    succeed(cwd, "--resume")
    assert contents(cwd / "out") == expected


def test_a_folder_that_was_killed_in_the_making_is_swept_up(cwd, expected):
    assert run(cwd, fault="begin:1:kill").code == -signal.SIGKILL
    [private] = [path for path in cwd.iterdir() if is_private(path.name)]
    mine = cwd / private_name()
    thesis(mine)
    for path in (private, mine):
        os.utime(path, (0, 0))
    succeed(cwd)
    assert contents(cwd / "out") == expected
    assert not private.exists()
    assert is_mine(mine)


def test_a_folder_that_another_run_is_making_is_not_swept_up(cwd, halted):
    def meanwhile():
        [private] = [path for path in cwd.iterdir() if is_private(path.name)]
        os.utime(private, (0, 0))
        succeed(cwd)
        assert private.exists()
        (cwd / "out").rename(cwd / "first")

    assert halted("begin", meanwhile).code == 0
    assert contents(cwd / "first") == contents(cwd / "out")
    assert listed(cwd) == ["c.yml", "first", "out"]


def test_a_lock_that_was_moved_away_is_not_held(tmp_path):
    from mergeplan.system.files import lock

    folder = tmp_path / "work"
    folder.mkdir()
    held = lock(folder)
    folder.rename(tmp_path / "removed")
    folder.mkdir()
    other = lock(folder)  # the file at the path, not the one that has left it
    assert os.fstat(other.fileno()).st_ino == (folder / "lock").stat().st_ino
    held.close()
    other.close()


def test_a_lock_that_goes_while_it_is_waited_for_is_given_up(tmp_path, monkeypatch):
    """Between opening and locking, the run before removed it: its file is nobody's lock."""
    import fcntl

    from mergeplan.system.files import lock

    flock, turns = fcntl.flock, []

    def slow(file, how):
        if not turns:
            (tmp_path / "lock").unlink()
        turns.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    held = lock(tmp_path)
    assert len(turns) == 2
    assert os.fstat(held.fileno()).st_ino == (tmp_path / "lock").stat().st_ino
    held.close()


def test_cleaning_up_that_fails_does_not_undo_a_merge(cwd, expected, halted):
    def meanwhile():
        shutil.rmtree(cwd / "out.partial")

    ended = halted("published", meanwhile)
    assert ended.code == 0
    assert contents(cwd / "out") == expected
