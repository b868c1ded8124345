"""The examples in the package's docstrings run, and give what they say."""

import doctest
import importlib
import re
import shutil
from pathlib import Path

import pytest

import mergeplan
from tests.support.settings import DEMO_POOL

ROOT = Path(mergeplan.__file__).parent
# Examples that a test cannot run: they need torch models, an evaluation, or minutes.
SKIPPED = 4


def modules():
    """Every module that has an example, by name."""
    for path in sorted(ROOT.rglob("*.py")):
        if ">>> " in path.read_text("utf-8"):
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.fixture(scope="module")
def beside_a_pool(tmp_path_factory):
    """A folder with the bundled pool in `pool`."""
    folder = tmp_path_factory.mktemp("doctests")
    shutil.copytree(DEMO_POOL, folder / "pool")
    return folder


@pytest.mark.usefixtures("own_methods")
@pytest.mark.parametrize("name", list(modules()))
def test_examples_give_what_they_say(name, beside_a_pool, monkeypatch):
    monkeypatch.chdir(beside_a_pool)
    for left in ("merged", "sampled"):
        shutil.rmtree(left, ignore_errors=True)
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(module, optionflags=flags)
    assert found.attempted > 0
    assert found.failed == 0


def test_few_examples_are_skipped():
    texts = [path.read_text("utf-8") for path in ROOT.rglob("*.py")]
    assert sum(len(re.findall(r"doctest: \+SKIP", text)) for text in texts) == SKIPPED
