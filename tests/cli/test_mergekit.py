"""`mergeplan mergekit`: mergekit's own command, our kernels."""

import subprocess
import sys

import pytest

from mergeplan import mergekit_plugin
from tests.support.checkpoints import weights_of
from tests.support.commands import cli
from tests.support.merges import config_text, run_mergeplan


@pytest.fixture(autouse=True)
def mergekits_own_methods():
    """The command leaves our kernels in mergekit, which other tests want as it is."""
    yield
    mergekit_plugin.unregister()


def demo_config(demo_pool, folder):
    path = folder / "c.yml"
    path.write_text(
        config_text(
            "dare_ties",
            [demo_pool / "html", demo_pool / "json"],
            base=demo_pool / "base",
            parameters={"weight": 0.7, "density": 0.5},
        )
    )
    return path


def test_a_run_writes_what_mergeplan_merges_with_seed_0(demo_pool, tmp_path):
    config = demo_config(demo_pool, tmp_path)
    run = cli("mergekit", config, tmp_path / "theirs", "--no-copy-tokenizer", "-j", 1)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert "by mergeplan's kernels: 27, by mergekit's own: 0" in run.stderr
    run_mergeplan(config.read_text(), tmp_path / "ours")
    assert weights_of(tmp_path / "theirs") == weights_of(tmp_path / "ours")
    # mergekit's flags are mergekit's.
    assert not (tmp_path / "theirs" / "tokenizer.json").exists()


def test_faults_have_their_exit_codes(tmp_path):
    missing = cli("mergekit", tmp_path / "c.yml", tmp_path / "out")
    assert missing.returncode == 1
    assert f"`{tmp_path / 'c.yml'}`" in missing.stderr
    (tmp_path / "c.yml").write_text("merge_method: nothing\n")
    refused = cli("mergekit", tmp_path / "c.yml", tmp_path / "out")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: mergekit stopped: ")
    assert "Traceback" not in refused.stderr
    assert cli("mergekit", tmp_path / "c.yml", "out", "--nonsense").returncode == 2


def test_help_does_not_load_mergekit():
    code = (
        "import sys\nfrom mergeplan.cli import group\n"
        "group(['mergekit', '--help'], standalone_mode=False)\n"
        "print([m for m in ('torch', 'mergekit', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mergekit-yaml" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"
