"""What `--resume` refuses, with what it says, and what it repairs."""

import json
import os
import shutil
import signal
import sys

import pytest

from tests.support.runs import contents, end, run, start_halted, succeed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes")
MODEL = "model-00001-of-00002.safetensors"


@pytest.fixture
def models(small, tmp_path):
    """The small pool, a copy that may be changed."""
    shutil.copytree(small.pool.folder, tmp_path / "pool")
    return tmp_path / "pool"


@pytest.fixture
def arguments(small):
    return ("--out-shard-size", small.pool.shard_bytes, "--threads", 1)


@pytest.fixture
def left(small, models, arguments, tmp_path):
    """A merge that was killed after 9 blocks: two tensors are whole, and a part of the third."""
    cwd = small.place(tmp_path / "w", "ties")
    config = (cwd / "c.yml").read_text().replace(str(small.pool.folder), str(models))
    (cwd / "c.yml").write_text(config)
    assert run(cwd, *arguments, fault="journal:10:kill").code == -signal.SIGKILL
    return cwd


@pytest.fixture
def expected(left, arguments, tmp_path):
    """What the merge gives undisturbed."""
    (tmp_path / "undisturbed").mkdir()
    shutil.copy(left / "c.yml", tmp_path / "undisturbed")
    succeed(tmp_path / "undisturbed", *arguments)
    return contents(tmp_path / "undisturbed" / "out")


def refused(cwd, *arguments) -> str:
    """The message of a resumed run that must not go on, nor throw anything away."""
    before = contents(cwd / "out.partial")
    ended = run(cwd, *arguments, "--resume")
    assert ended.code == 1
    assert not (cwd / "out").exists()
    assert contents(cwd / "out.partial") == before
    assert "--discard" in ended.stderr
    assert "goes on" not in ended.stderr
    return ended.stderr


def test_a_changed_merge_is_refused_by_name(left, arguments):
    assert "`plan.seed` has changed" in refused(left, *arguments, "--random-seed", 3)
    other = ("--out-shard-size", "1GB", "--threads", 1)
    assert "`plan.max_shard_bytes` has changed" in refused(left, *other)
    text = (left / "c.yml").read_text()
    (left / "c.yml").write_text(text.replace("density: 0.5", "density: 0.6", 1))
    message = refused(left, *arguments)
    assert "density` has changed" in message
    assert "expected 0.5, found 0.6" in message
    (left / "c.yml").write_text(text.replace("merge_method: ties", "merge_method: task_arithmetic"))
    assert "`plan.jobs[0].merge" in refused(left, *arguments)


def test_another_version_or_another_number_of_threads(left, arguments, expected):
    state = left / "out.partial" / "merge.json"
    text = state.read_text()
    state.write_text(text.replace('"mergeplan_version": "', '"mergeplan_version": "9', 1))
    assert "`mergeplan_version` has changed" in refused(left, *arguments)
    state.write_text(text)
    report = succeed(left, *arguments[:2], "--threads", 3, "--resume")
    assert report["resumed_blocks"] == 9
    assert contents(left / "out") == expected


def more_tensors(path):
    """The same model with one tensor more, of a kind that the others may lack."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    place = [len(body), len(body) + 2]
    header["rotary_emb.inv_freq"] = {"dtype": "BF16", "shape": [1], "data_offsets": place}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body + b"\0\0")


def touch(path):
    os.utime(path, ns=(1, 1))


def restore(path):
    """As from a backup: another file, with another time of change."""
    shutil.copy(path, path.with_name("backup"))
    path.with_name("backup").replace(path)


def flip(path, at: int):
    """Another bit, and the same length, time of modification and inode."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [more_tensors, touch, restore])
def test_an_input_that_only_looks_changed_is_gone_on_with(
    change, left, models, arguments, expected
):
    path = models / "b" / "model.safetensors"
    change(path)
    # What was whole of the third tensor is done again: its statistics might be of another content.
    assert succeed(left, *arguments, "--resume")["resumed_blocks"] == 8
    found = contents(left / "out")
    for name in (MODEL, "model-00002-of-00002.safetensors", "config.json"):
        assert found[name] == expected[name]


def test_what_is_gone_on_with_is_known_from_then_on(left, models, arguments):
    path = models / "b" / "model.safetensors"
    before = (left / "out.partial" / "merge.json").read_text()
    touch(path)
    ended = run(left, *arguments, "--resume", fault="journal:2:kill")
    assert ended.code == -signal.SIGKILL
    after = (left / "out.partial" / "merge.json").read_text()
    assert f'"{path}", {path.stat().st_size}, 1, ' in after
    assert f'"{path}", {path.stat().st_size}, 1, ' not in before
    assert succeed(left, *arguments, "--resume")["resumed_blocks"] == 9


@pytest.mark.parametrize("name", ["base", "b"])
def test_a_changed_input_is_refused_by_name(name, left, models, arguments):
    path = models / name / "model.safetensors"
    flip(path, 8 + int.from_bytes(path.read_bytes()[:8], "little") + 1)
    assert f"has changed since `{left}/out.partial` was begun, in `{path}`" in refused(
        left, *arguments
    )


@pytest.mark.parametrize("part", ["begun", "not begun"])
def test_what_changed_and_was_not_merged_is_merged_as_it_is_now(part, left, models, arguments):
    """Two tensors of 420,000 bytes are whole, and a block of the third is."""
    path = models / "b" / "model.safetensors"
    flip(path, -1 if part == "not begun" else -2 * 420_000 + 1)
    succeed(left, *arguments, "--resume")
    (left / "out").rename(left / "resumed")
    succeed(left, *arguments)
    assert contents(left / "resumed") == contents(left / "out")


def test_a_published_merge_is_known_by_the_content_of_its_inputs(left, models, arguments):
    path = models / "b" / "model.safetensors"
    assert run(left, *arguments, "--resume", fault="published:1:kill").code == -signal.SIGKILL
    found = contents(left / "out")
    restore(path)
    succeed(left, *arguments, "--resume")
    assert contents(left / "out") == found
    flip(path, -1)
    ended = run(left, *arguments, "--resume")
    assert ended.code == 1
    assert "is not empty" in ended.stderr


def test_a_damaged_state_is_refused_and_discarding_starts_over(left, arguments, expected):
    state = left / "out.partial" / "merge.json"
    state.write_text(state.read_text()[:200])
    assert "merge.json` is damaged" in refused(left, *arguments)
    report = succeed(left, *arguments, "--discard")
    assert report["resumed_blocks"] == 0
    assert contents(left / "out") == expected


@pytest.mark.parametrize(
    ("damage", "blocks"), [("cut", 8), ("bits", 3), ("block", 8), ("all blocks", 0), ("empty", 0)]
)
def test_what_is_damaged_is_done_again(damage, blocks, left, arguments, expected):
    journal = left / "out.partial" / "journal"
    records = bytearray(journal.read_bytes())
    if damage == "cut":
        journal.write_bytes(records[:-7])
    elif damage == "bits":
        records[3 * 24 + 5] ^= 4
        journal.write_bytes(records)
    elif damage == "empty":
        journal.write_bytes(b"")
    else:
        path = left / "out.partial" / "data" / MODEL
        data = bytearray(path.read_bytes())
        begin = 8 + int.from_bytes(data[:8], "little")
        if damage == "block":
            data[begin + 1000] ^= 1
        else:
            data[begin:] = bytes(len(data) - begin)
            second = path.with_name("model-00002-of-00002.safetensors")
            other = bytearray(second.read_bytes())
            begin = 8 + int.from_bytes(other[:8], "little")
            other[begin:] = bytes(len(other) - begin)
            second.write_bytes(other)
        path.write_bytes(data)
    assert succeed(left, *arguments, "--resume")["resumed_blocks"] == blocks
    assert contents(left / "out") == expected


def test_files_that_are_not_those_of_the_merge_are_refused(left, arguments):
    path = left / "out.partial" / "data" / MODEL
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert f"{MODEL}`: it is not the file that this merge would write" in refused(left, *arguments)
    path.write_bytes(data[:20] + b"!" + data[21:])
    assert f"{MODEL}`: it is not the file" in refused(left, *arguments)
    path.unlink()
    assert f"{MODEL}`: cannot open it" in refused(left, *arguments)
    shutil.rmtree(path.parent)
    assert "data` is no folder" in refused(left, *arguments)


@pytest.mark.parametrize("place", [f"data/{MODEL}", "journal", "data", "lock"])
def test_a_planted_link_is_not_followed(place, left, arguments, tmp_path):
    path = left / "out.partial" / place
    victim = tmp_path / "victim"
    path.rename(victim)
    path.symlink_to(victim)
    before = contents(victim) if victim.is_dir() else victim.read_bytes()
    ended = run(left, *arguments, "--resume")
    assert ended.code == 1
    assert place.rsplit("/", 1)[-1] in ended.stderr
    assert (contents(victim) if victim.is_dir() else victim.read_bytes()) == before
    if place != "lock":  # somebody else's lock must be removed by hand
        succeed(left, *arguments, "--discard")
        assert (contents(victim) if victim.is_dir() else victim.read_bytes()) == before


@pytest.mark.parametrize("place", [f"data/{MODEL}", "journal"])
def test_a_planted_hard_link_is_not_written_through(place, left, arguments, tmp_path):
    victim = tmp_path / "victim"
    (left / "out.partial" / place).rename(victim)
    (left / "out.partial" / place).hardlink_to(victim)
    before = victim.read_bytes()
    assert "hard link" in refused(left, *arguments)
    assert victim.read_bytes() == before
    succeed(left, *arguments, "--discard")
    assert victim.read_bytes() == before


def test_links_planted_for_the_small_files_are_not_followed(left, arguments, expected, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("config.json", "README.md", "tokenizer.json"):
        (left / "out.partial" / "data" / name).symlink_to(victim)
    succeed(left, *arguments, "--resume")
    assert victim.read_text() == "mine"
    assert contents(left / "out") == expected


@pytest.mark.parametrize("change", ["append", "touch", "rewrite"])
def test_an_input_that_changes_while_it_is_read_ends_the_merge(change, long_merge):
    path = long_merge / "zeros" / "a" / "model.safetensors"
    process = start_halted(long_merge, "--threads", 1, at="journal:2")
    if change == "touch":
        path.touch()
    else:
        with path.open("ab" if change == "append" else "r+b") as file:
            file.seek(1 << 24)
            file.write(b"\0")
    process.send_signal(signal.SIGCONT)
    ended = end(process)
    assert ended.code == 1
    assert f"{path}` changed during the merge" in ended.stderr
    # Nothing could go on from blocks of which nobody knows what they were made of.
    assert not (long_merge / "out").exists()
    assert not (long_merge / "out.partial").exists()
    assert "goes on" not in ended.stderr
