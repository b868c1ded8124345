"""What a person sees on a terminal while a merge runs."""

import os
import re
import shutil
import sys

import pytest

from tests.support.runs import make_zeros, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


def on_terminal(cwd, *args) -> tuple[int, str]:
    """Run a merge whose stderr is a terminal; returns its code and what the terminal got."""
    import pty

    ours, theirs = pty.openpty()
    process = start(cwd, *args, fresh=True, first=lambda: os.dup2(theirs, 2))
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, shown.decode()


def test_a_line_shows_share_bytes_rate_and_time_left(long_merge):
    # Long enough for more than one line.
    shutil.rmtree(long_merge / "zeros")
    make_zeros(long_merge / "zeros", 1 << 24)
    code, shown = on_terminal(long_merge, "--threads", 1)
    assert code == 0
    lines = [line for line in shown.split("\r\x1b[K") if "%" in line]
    form = r" *\d+ %  [\d.]+ [kMG]?B of 537 MB  [\d.e+]+ [kMG]?B/s  (\d+ s left)?"
    assert len(lines) >= 2
    assert all(re.fullmatch(form, line) for line in lines), lines
    shares = [int(line.split("%")[0]) for line in lines]
    assert shares == sorted(shares)
    assert max(shares) <= 100
    # The line is gone when the merge is done; warnings follow.
    assert shown.rindex("\r\x1b[K") > shown.rindex("%")


def test_quiet_shows_nothing(long_merge):
    assert on_terminal(long_merge, "--threads", 1, "--quiet") == (0, "")
