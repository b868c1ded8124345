"""Another mergeplan that is measured beside this one."""

import os
import subprocess
import sys
from pathlib import Path

from mergeplan.display.text import cut
from mergeplan.errors import InputError

# The core is named on its own: where it is not built, a folder of its stubs has its name.
_WHERE = "from mergeplan._native import __file__, __version__; print(__file__)"
_EXPECTED = "expected a checkout with its core built, or a Python that has mergeplan, found"
# An interpreter starts and imports in a fraction of a second; what else is run may never end.
_SECONDS = 30


def other_mergeplan(place: Path | None) -> tuple[str, dict[str, str]]:
    """The interpreter that runs another mergeplan, and the variables that it needs.

    Args:
        place: A checkout, whose extension module is built, or an interpreter.
    """
    if place is None or not place.is_dir():
        return str(place or sys.executable), {"PYTHONPATH": ""}
    return sys.executable, {"PYTHONPATH": str(_source(place))}


def check_other(place: Path) -> None:
    """Let it load its core, as it will for each merge.

    Raises:
        InputError: It has none, or is no Python.
    """
    python, variables = other_mergeplan(place)
    source = _source(place) if place.is_dir() else None
    if source is not None and not (source / "mergeplan" / "__init__.py").is_file():
        raise InputError(
            f"{_EXPECTED} a folder without `python/mergeplan`: `{place}`",
            "name the root of a checkout, such as a `git worktree` of the commit before",
        )
    try:
        done = subprocess.run(
            [python, "-c", _WHERE],
            env={**os.environ, **variables},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        raise InputError(
            f"{_EXPECTED} a file that is no program: `{place}` ({error.strerror})", _PYTHON
        ) from error
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{_EXPECTED} a program that has not ended after {_SECONDS} s: `{place}`", _PYTHON
        ) from None
    core = Path(done.stdout.strip())
    if source is not None and (done.returncode or source.resolve() not in core.resolve().parents):
        raise InputError(
            f"{_EXPECTED} a checkout whose core cannot be loaded: `{place}`{_said(done.stderr)}",
            f"build it: `maturin develop --release` in `{place}`, in an environment of its own",
        )
    if done.returncode or not core.is_file():
        raise InputError(
            f"{_EXPECTED} a program that has none: `{place}`{_said(done.stderr)}", _PYTHON
        )


_PYTHON = "name a Python in which `python -m mergeplan --version` works, such as `venv/bin/python`"


def _source(checkout: Path) -> Path:
    return checkout / "python" if (checkout / "python").is_dir() else checkout


def _said(errors: str) -> str:
    """The end of what it said, which has the reason."""
    lines = errors.strip().splitlines()
    return f" ({cut(lines[-1], 200)})" if lines else ""
