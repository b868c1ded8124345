"""A seeded share of `tests/tools/attacks`; docs/evidence/robustness.md has the long runs."""

import shutil
import subprocess
import sys

import pytest

from tests.support.settings import ROOT
from tests.support.shares import spread


@pytest.mark.skipif(sys.platform != "linux", reason="strace, signals and mounts of Linux")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("seed", spread(["21", "22", "23", "24"], 1))
def test_no_attack_of_the_share_breaks_a_promise(seed):
    command = [sys.executable, "-m", "tests.tools.attacks", "--share", "--seed", seed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "signals: 5 rounds" in done.stdout
