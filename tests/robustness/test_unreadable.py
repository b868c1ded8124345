"""Pages of a mapped input that cannot be read end a merge in words, and what is done stays."""

import os
import signal
import sys

import pytest

from tests.support.runs import end, start_halted, succeed


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a mapped file cannot be cut")
def test_an_input_that_becomes_shorter_while_it_is_read(long_merge):
    path = long_merge / "zeros" / "b" / "model.safetensors"
    length = path.stat().st_size
    process = start_halted(long_merge, "--threads", 1, at="journal:2")
    os.truncate(path, length // 2)
    process.send_signal(signal.SIGCONT)
    ended = end(process)
    assert ended.code == 1, ended
    assert "error: an input cannot be read" in ended.stderr
    assert not (long_merge / "out").exists()
    os.truncate(path, length)
    succeed(long_merge, "--threads", 1, "--discard")
