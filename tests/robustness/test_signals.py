"""Stopped or killed at any moment, a merge leaves `OUT` absent or complete, and can be resumed."""

import signal
import subprocess
import sys

import pytest

from tests.support.commands import cli
from tests.support.merges import config_text
from tests.support.runs import contents, end, start_halted, succeed

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="no such signals to send")


def stop(folder, number):
    """Send a signal once some of the output is written."""
    process = start_halted(folder, "--threads", "1", "--random-seed", "5", at="journal:41")
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    return end(process)


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_orderly_stop_says_how_to_go_on_and_that_gives_the_same_bytes(number, code, long_merge):
    stopped = stop(long_merge, number)
    assert stopped.code == code
    assert not (long_merge / "out").exists()
    assert (long_merge / "out.partial" / "data" / "model.safetensors").exists()
    # The command that is named is the one that was given, with its options.
    begin = "`mergeplan merge c.yml out "
    command = stopped.stderr.split(begin)[1].split("`")[0].split()
    assert command == ["--threads", "1", "--random-seed", "5", "--resume"]
    report = succeed(long_merge, *command)
    assert report["resumed_blocks"] >= 32
    resumed = contents(long_merge / "out")
    succeed(long_merge, *command[:-1], "--overwrite")
    assert contents(long_merge / "out") == resumed


@posix_only
def test_a_ctrl_c_inside_of_text_that_is_run_ends_with_130(tmp_path):
    """CPython notes it as one that nobody catches, and would end the process by the signal."""
    (tmp_path / "stopped.py").write_text(
        "import os, signal\n"
        "from mergeplan import cli\n"
        "cli._run = lambda: exec('os.kill(os.getpid(), signal.SIGINT)')\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


@posix_only
def test_a_second_sigterm_while_the_process_ends_says_nothing(tmp_path):
    """It raised inside of `threading._shutdown`, which printed a traceback."""
    (tmp_path / "stopped.py").write_text(
        "import os, signal, threading, time\n"
        "from mergeplan import cli\n"
        "main = threading.main_thread()\n"
        "def late():\n"
        "    main.join()\n"
        "    for _ in range(3):\n"
        "        time.sleep(0.1)\n"
        "        signal.pthread_kill(main.ident, signal.SIGTERM)\n"
        "def run():\n"
        "    threading.Thread(target=late).start()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(5)\n"
        "cli._run = run\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "")


@posix_only
def test_a_killed_merge_leaves_no_output_and_the_next_says_how_to_go_on(long_merge):
    assert stop(long_merge, signal.SIGKILL).code == -signal.SIGKILL
    assert not (long_merge / "out").exists()
    run = cli("merge", "c.yml", "out", cwd=long_merge)
    assert run.returncode == 1
    assert "out.partial" in run.stderr
    assert "--resume" in run.stderr
    assert "--discard" in run.stderr
    assert cli("merge", "c.yml", "out", "--discard", cwd=long_merge).returncode == 0
    assert (long_merge / "out" / "model.safetensors").exists()
    assert not (long_merge / "out.partial").exists()


def test_an_output_is_replaced_whole(small_models):
    text = config_text("linear", [small_models / "a"], parameters={"weight": 1})
    (small_models / "c.yml").write_text(text)
    (small_models / "out").mkdir()
    (small_models / "out" / "old").write_text("old")
    # A failing merge leaves the old output as it was.
    (small_models / "a" / "model.safetensors").rename(small_models / "aside")
    assert cli("merge", "c.yml", "out", "--overwrite", cwd=small_models).returncode == 1
    assert (small_models / "out" / "old").read_text() == "old"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_that_a_library_swallows_stops_at_the_next_progress(number, code):
    script = f"""
import os, sys
from mergeplan import cli
from mergeplan.system.progress import ProgressLine

def command(**_):
    try:
        os.kill(os.getpid(), {int(number)})
    except BaseException:
        pass
    ProgressLine(quiet=True)(1, 2)

cli.group.main = command
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_an_interrupt_that_is_ignored_stays_ignored():
    """As in the background of a script."""
    script = """
import os, signal
from mergeplan.system import signals
signal.signal(signal.SIGINT, signal.SIG_IGN)
signals.arm()
os.kill(os.getpid(), signal.SIGINT)
signals.raise_again()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
