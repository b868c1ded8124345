"""Every example runs."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path, tmp_path):
    if "sklearn" in path.read_text("utf-8"):
        pytest.importorskip(
            "sklearn", reason="needs scikit-learn, which the extra `harness` brings"
        )
    run = subprocess.run(
        [sys.executable, str(path), str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout
