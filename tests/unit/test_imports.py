"""`import mergeplan` and `--help` load nothing heavy."""

import ast
import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.support.settings import ROOT

HEAVY = ["torch", "transformers", "scipy", "matplotlib", "mergekit", "numpy", "yaml"]


@pytest.mark.parametrize(
    "code",
    [
        "import mergeplan",
        "from mergeplan.cli import group\ngroup(['--help'], standalone_mode=False)",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(code):
    check = f"{code}\nimport sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_inspecting_and_merging_need_neither_torch_nor_scipy(small_models):
    from tests.support.merges import config_text

    config = small_models / "c.yml"
    models, base = [small_models / "a"], small_models / "base"
    config.write_text(config_text("ties", models, base=base, parameters={"weight": 1}))
    code = (
        "import sys, mergeplan\n"
        f"mergeplan.inspect([{str(config)!r}])\n"
        "import mergeplan.inspection.inspection\n"
        f"mergeplan.merge({str(config)!r}, {str(small_models / 'out')!r})\n"
        "print([m for m in ('torch', 'scipy', 'numpy', 'mergekit') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_public_names_are_functions_even_after_their_modules_were_imported():
    import mergeplan
    import mergeplan.law.fit
    import mergeplan.law.recommend
    import mergeplan.merging.merge

    for name in ("fit", "merge", "suggest"):
        assert callable(getattr(mergeplan, name))
    with pytest.raises(AttributeError):
        mergeplan.nothing  # noqa: B018


def test_errors_survive_pickling():
    import pickle

    from mergeplan.errors import InputError, MissingInputError

    for error in (InputError("what", "how"), MissingInputError("what")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.message, again.hint) == (type(error), error.message, error.hint)


def test_every_tool_finds_what_it_imports_of_ours():
    for path in (ROOT / "tests" / "tools").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mergeplan."):
                module = importlib.import_module(node.module)
                lost = [name.name for name in node.names if not _has(module, name.name)]
                assert not lost, f"{path}: {node.module}"


def _has(package, name):
    """Whether it can be imported from there: a module of a package may not be loaded yet."""
    if hasattr(package, name):
        return True
    return hasattr(package, "__path__") and bool(find_spec(f"{package.__name__}.{name}"))
