"""Standard streams that are closed, broken, full or narrow; Ctrl-C from the first line."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support.commands import COMMAND

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors of a POSIX shell")
MERGEPLAN = f"{sys.executable} -m mergeplan"


def shell(line: str, cwd, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `mergeplan` is the command; the last status is its own."""
    return subprocess.run(
        ["bash", "-c", line.replace("mergeplan ", f"{MERGEPLAN} ")],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("mergeplan merge c.yml out 2>&-", 0),
        ("mergeplan merge c.yml out 0<&- 2>&-", 0),
        ("mergeplan merge c.yml out 2>/dev/full", 0),
        # A warning goes to a pipe whose reader has gone: the merge is done all the same.
        ("mergeplan merge c.yml out -v --clone-tensors 2> >(exec true)", 0),
        ("mergeplan merge c.yml out >&-", 0),
        ("mergeplan merge c.yml out >&- 2>&-", 0),
        ("mergeplan merge c.yml out --json >&-", 1),
        ("mergeplan merge c.yml out --json >/dev/full", 1),
        ("mergeplan inspect c.yml >&-", 1),
        ("mergeplan inspect c.yml >&- 2>&-", 1),
        ("mergeplan inspect c.yml --json | true; exit ${PIPESTATUS[0]}", 0),
        ("mergeplan merge c.yml out --dry-run | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 0),
        ("mergeplan merge nothing.yml out 2>&-", 1),
    ],
)
def test_a_stream_that_is_not_there_loses_words_and_no_work(line, code, config, small_models):
    done = shell(line, small_models)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "fault of mergeplan" not in done.stderr
    if code == 0 and "merge c.yml" in line and "dry-run" not in line:
        assert (small_models / "out" / "model.safetensors").exists()


def test_a_narrow_encoding_writes_what_it_lacks_as_escapes(config, small_models):
    config.rename(small_models / "ŝ.yml")
    narrow = {"PYTHONIOENCODING": "latin-1"}
    done = shell("mergeplan merge nŝ.yml out", small_models, **narrow)
    assert (done.returncode, "n\\u015d.yml" in done.stderr) == (1, True), done.stderr
    assert shell("mergeplan merge ŝ.yml ŝout", small_models, **narrow).returncode == 0


def test_ctrl_c_at_any_moment_of_our_own_prints_no_traceback(config, small_models, full):
    rng = random.Random(0)
    for _ in range(300 if full else 6):
        process = subprocess.Popen(
            [*COMMAND, "inspect", "c.yml"],
            cwd=small_models,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(rng.uniform(0.02, 0.5))
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        # Up to our first line, which imports what keeps it quiet, the words are Python's own.
        before = re.sub(
            r'.*__init__.py", line \d+, in <module>\n.*import start as _start\n', "", stderr
        )
        assert "Traceback" not in stderr or "mergeplan" not in before, stderr
        assert process.returncode in (0, 130, -signal.SIGINT)


def test_ctrl_c_in_the_first_import_prints_no_traceback(tmp_path):
    (tmp_path / "lazy_loader.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [*COMMAND, "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "stopped\n"
    assert done.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        ("MemoryError()", 1, "the system gives no more memory"),
        ('RuntimeError("can\'t start new thread")', 1, "the system gives no more threads"),
        (
            "type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory')",
            1,
            "the GPU has too little memory: CUDA out of memory",
        ),
        ("RuntimeError('DefaultCPUAllocator: no')", 1, "the system gives no more memory"),
        (
            "ImportError('libz.so.1: failed to map segment', name='zlib')",
            1,
            "cannot load a library",
        ),
        ("BrokenPipeError()", 1, "a process that this command worked with has ended"),
        ("OSError(5, 'Input/output error', 'a\\nb')", 1, "Input/output error: `a\\nb`"),
        ("ZeroDivisionError('x' * 5000)", 3, "this is a fault of mergeplan"),
    ],
)
def test_what_the_system_refuses_is_its_fault_and_not_ours(raised, code, words):
    script = f"""
import sys
from mergeplan import cli
from mergeplan.cli import plot

def fails(**_):
    raise {raised}

plot.command.callback = fails
sys.argv = ["mergeplan", "plot", "x", "-o", "y"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 600
