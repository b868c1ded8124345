"""Files that are read whole are plain and of a bounded length, or a pipe that the user names."""

import os
import subprocess
import sys
import threading
import time

import pytest

from mergeplan.errors import InputError
from mergeplan.system import reading
from mergeplan.system.reading import Kind, read_bytes
from tests.support.commands import COMMAND, cli, cli_process

SHORT = Kind(10, "list")


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_file_is_read_up_to_its_bound_and_no_further(tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "f", SHORT) == b"0123456789"
    (tmp_path / "f").write_bytes(b"0123456789x")
    with pytest.raises(InputError, match="list `.*f`: expected at most 10 B, found 11 B"):
        read_bytes(tmp_path / "f", SHORT)


def test_a_file_whose_length_the_system_does_not_say_is_bounded_too(tmp_path):
    with pytest.raises(InputError, match="expected at most 10 B, found more"):
        read_bytes(reading.Path("/proc/self/status"), SHORT)


@pytest.mark.parametrize("what", ["/dev/zero", "fifo"])
def test_what_no_user_named_must_be_plain(what, tmp_path, fifo):
    (tmp_path / "link").symlink_to(tmp_path / what)
    begun = time.monotonic()
    with pytest.raises(InputError, match="expected a plain file, found a (device|pipe)"):
        read_bytes(tmp_path / "link", SHORT)
    assert time.monotonic() - begun < 1


def test_links_to_plain_files_are_followed(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    assert read_bytes(tmp_path / "link", SHORT) == b"x"


def test_a_device_without_end_that_the_user_names_ends_at_the_bound():
    with pytest.raises(InputError, match="found more"):
        read_bytes(reading.Path("/dev/zero"), SHORT, given=True)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(fifo, monkeypatch):
    monkeypatch.setattr(reading, "_NO_WRITER_SECONDS", 0.1)
    with pytest.raises(InputError, match="nobody writes to that pipe"):
        read_bytes(fifo, SHORT, given=True)


def test_a_slow_writer_of_a_pipe_that_the_user_names_is_waited_for(fifo):
    def write():
        with fifo.open("wb", buffering=0) as pipe:
            for piece in (b"ab", b"cd"):
                pipe.write(piece)
                time.sleep(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_bytes(fifo, SHORT, given=True) == b"abcd"
    writer.join()


def test_a_config_comes_through_a_pipe(config, small_models):
    command = f"exec {sys.executable} -m mergeplan merge <(cat c.yml) out"
    done = subprocess.run(["bash", "-c", command], cwd=small_models, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [*COMMAND, "merge", "/dev/stdin", "from_stdin"],
        cwd=small_models,
        input=config.read_text(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_model_folder_of_pipes_is_refused_or_passed_over_at_once(name, config, small_models):
    (small_models / "base" / name).unlink(missing_ok=True)
    os.mkfifo(small_models / "base" / name)
    begun = time.monotonic()
    run = cli("merge", config, small_models / "out")
    assert run.returncode in (0, 1), run.stderr
    assert time.monotonic() - begun < 20


def test_endless_files_of_a_model_are_refused_by_name(config, small_models):
    path = small_models / "base" / "config.json"
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")
    run = cli("merge", config, small_models / "out")
    assert (run.returncode, "config.json`: expected a plain file" in run.stderr) == (1, True)


def test_a_listed_config_that_is_a_pipe_is_refused(tmp_path, demo_pool):
    run = cli("sample", demo_pool / "pool.yml", "-o", tmp_path / "sub")
    assert run.returncode == 0, run.stderr
    configs = sorted((tmp_path / "sub" / "configs").iterdir())
    configs[0].unlink()
    os.mkfifo(configs[0])
    run = cli_process("merge", "--many", tmp_path / "sub" / "subsets.csv", tmp_path / "out")
    assert run.returncode == 1
    assert "expected a plain file, found a pipe" in run.stderr
