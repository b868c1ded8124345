"""Disks that are full, read-only or mounted where the output goes: real ones, in memory."""

import json
import os
import signal
import subprocess
import sys

import pytest

from mergeplan.errors import SurroundingsError
from mergeplan.merging import turns
from tests.support.merges import run_mergeplan
from tests.support.runs import contents, end, run, start_halted, succeed
from tests.support.shares import spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts tmpfs")
ROOM = "100m"  # more than the output and what is kept free for the files beside it


@pytest.fixture
def mount():
    """Mounts a tmpfs on a folder; it goes when the test does."""
    mounted = []

    def at(folder, size=ROOM, *more):
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *more)), "none", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"cannot mount a disk: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield at
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


@pytest.fixture
def disk(mount, small, tmp_path):
    """A merge on a disk of its own."""
    folder = mount(tmp_path / "disk")
    return small.place(folder / "w", "ties")


@pytest.fixture
def arguments(small):
    return ("--out-shard-size", small.pool.shard_bytes, "--threads", 1)


def fill(disk) -> None:
    """Take all the room that is left."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_disk_that_is_too_small_is_refused(mount, small, tmp_path, arguments):
    cwd = small.place(mount(tmp_path / "disk", "1m") / "w", "ties")
    ended = run(cwd, *arguments)
    assert ended.code == 1
    assert "no space for the output" in ended.stderr
    assert [path.name for path in cwd.iterdir()] == ["c.yml"]


@pytest.mark.parametrize(("size", "more"), [("1m", ()), (ROOM, ("nr_inodes=6",))])
def test_room_that_is_gone_when_it_is_reserved(size, more, mount, small, tmp_path, monkeypatch):
    """Another program was quicker, or the count of files is what is short."""
    folder = mount(tmp_path / "disk", size, *more)
    monkeypatch.setattr(turns, "check_space", lambda *_: None)
    config, shard_bytes = small.pool.config("ties"), small.pool.shard_bytes
    with pytest.raises(SurroundingsError, match="No space left"):
        run_mergeplan(config, folder / "out", max_shard_bytes=shard_bytes)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("point", ["write:7", "companions:1"])
def test_a_disk_that_fills_up_later(point, disk, small, arguments):
    expected, _ = small("ties", *arguments)
    assert run(disk, *arguments, fault=f"{point}:kill").code == -signal.SIGKILL
    fill(disk)
    ended = run(disk, *arguments, "--resume")
    assert ended.code == 1
    assert "No space left" in ended.stderr
    assert "--resume` goes on" in ended.stderr
    assert not (disk / "out").exists()
    (disk / "filler").unlink()
    assert succeed(disk, *arguments, "--resume")["resumed_blocks"] > 0
    assert contents(disk / "out") == expected


def test_a_disk_that_becomes_read_only(disk, small, arguments):
    expected, _ = small("ties", *arguments)
    remount(disk.parent, "ro")
    ended = run(disk, *arguments)
    assert ended.code == 1
    assert "Read-only file system" in ended.stderr
    remount(disk.parent, "rw")
    assert run(disk, *arguments, fault="write:7:kill").code == -signal.SIGKILL
    remount(disk.parent, "ro")
    for more in (["--resume"], ["--discard"], []):
        ended = run(disk, *arguments, *more)
        assert ended.code == 1
        assert "Read-only file system" in ended.stderr or "--resume" in ended.stderr
    remount(disk.parent, "rw")
    succeed(disk, *arguments, "--resume")
    assert contents(disk / "out") == expected


@pytest.fixture
def onto(mount, small, tmp_path, arguments):
    """A merge onto a mount point that has an older output of more shards."""
    cwd = small.place(tmp_path / "w", "linear")
    mount(cwd / "out")
    (cwd / "out" / "lost+found").mkdir()
    succeed(cwd, "--out-shard-size", small.pool.shard_bytes // 2)
    assert not (cwd / "out" / ".mergeplan.partial").exists()
    (cwd / "c.yml").write_text(small.pool.config("ties"))
    return cwd


def test_a_mount_point_is_written_and_replaced(onto, small, arguments):
    expected, _ = small("ties", *arguments)
    assert run(onto, *arguments).code == 1
    succeed(onto, *arguments, "--overwrite")
    assert contents(onto / "out") == expected
    assert not (onto / "out" / ".mergeplan.partial").exists()


@pytest.mark.parametrize("point", spread(["write:7", "move:1", "move:4", "publish:1", "move:8"], 2))
def test_a_kill_before_or_while_files_move_onto_a_mount_point(point, onto, small, arguments):
    expected, _ = small("ties", *arguments)
    before = contents(onto / "out")
    ended = run(onto, *arguments, "--overwrite", fault=f"{point}:kill")
    assert ended.code == -signal.SIGKILL
    out = onto / "out"
    if point.startswith("move"):
        # Half old and half new: no loader takes it for a model.
        assert not (out / "config.json").exists()
        assert "--resume" in run(onto, *arguments).stderr
        assert run(onto, *arguments, "--resume", fault="move:1:error").code == 1
        succeed(onto, *arguments, "--resume")
    else:
        assert {name: contents(out)[name] for name in before} == before
        succeed(onto, *arguments, "--overwrite", "--resume")
    assert contents(out) == expected
    assert not (out / ".mergeplan.partial").exists()


@pytest.mark.parametrize("point", ["write:7", "companions:1", "publish:1"])
def test_a_marker_on_a_mount_point_publishes_nothing_unfinished(point, onto, small, arguments):
    """One that is planted or left over beside a journal that is not whole."""
    expected, _ = small("ties", *arguments)
    before = contents(onto / "out")
    assert run(onto, *arguments, "--overwrite", fault=f"{point}:kill").code == -signal.SIGKILL
    work = onto / "out" / ".mergeplan.partial"
    names = json.dumps(sorted(expected))
    (work / "publishing").write_text(f'{{"names": {names}, "replaced": {{}}}}')
    if point == "publish:1":
        (work / "journal").write_bytes((work / "journal").read_bytes()[:-24])
    refused = run(onto, *arguments, "--resume")
    assert refused.code == 1
    assert "is not empty" in refused.stderr
    assert {name: contents(onto / "out")[name] for name in before} == before
    succeed(onto, *arguments, "--resume", "--overwrite")
    assert contents(onto / "out") == expected


@pytest.mark.parametrize("moved", [0, 3])
def test_what_appears_on_a_mount_point_is_kept(moved, onto, small, arguments):
    expected, _ = small("ties", *arguments)
    point = f"move:{moved + 1}" if moved else "publish:1"
    process = start_halted(onto, *arguments, "--overwrite", at=point)
    (onto / "out" / "config.json").unlink(missing_ok=True)
    for name in ("config.json", "thesis.txt"):
        (onto / "out" / name).write_text("mine")
    process.send_signal(signal.SIGCONT)
    ended = end(process)
    assert ended.code == 1
    assert "was made or changed by another program" in ended.stderr
    for name in ("config.json", "thesis.txt"):
        assert (onto / "out" / name).read_text() == "mine"
        (onto / "out" / name).unlink()
    succeed(onto, *arguments, "--resume", "--overwrite")
    assert contents(onto / "out") == expected


@pytest.mark.long
def test_every_moment_of_moving(onto, small, arguments):
    expected, _ = small("ties", *arguments)
    for number in range(1, len(expected) + 1):
        ended = run(onto, *arguments, "--overwrite", fault=f"move:{number}:kill")
        assert ended.code == -signal.SIGKILL
        succeed(onto, *arguments, "--resume")
        assert contents(onto / "out") == expected
    assert run(onto, *arguments, "--overwrite", fault="published:1:kill").code == -signal.SIGKILL
    succeed(onto, *arguments, "--resume")
    assert contents(onto / "out") == expected


def test_a_folder_that_may_not_be_written(small, tmp_path, arguments):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; the read-only disk stands for it")
    cwd = small.place(tmp_path / "w", "ties")
    cwd.chmod(0o500)
    ended = run(cwd, *arguments)
    assert ended.code == 1
    assert "cannot create" in ended.stderr
