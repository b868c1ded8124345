"""The command, in this process or in one of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.documents import check_document

Done = subprocess.CompletedProcess[str]
COMMAND = (sys.executable, "-m", "mergeplan")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def cli(*args: object, cwd: Path | None = None) -> Done:
    """Run the command in this process: the same code, without seconds of imports.

    Where the process is the point (signals, kills, pipes, what is imported), use `cli_process`.
    What `--json` prints has to be as its schema says.
    """
    from mergeplan.cli import main

    words = [str(word) for word in args]
    out, err = io.StringIO(), io.StringIO()
    with (
        _surroundings(words, cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    assert isinstance(code, int)
    if "--json" in words and out.getvalue():
        check_document(out.getvalue())
    return Done([*COMMAND, *words], code, out.getvalue(), err.getvalue())


def cli_process(
    *args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Done:
    """Run the command as a user does; `env` is added to the environment."""
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=100,
    )


@contextlib.contextmanager
def _surroundings(words: list[str], cwd: Path | None) -> Iterator[None]:
    """What a process of its own has for itself."""
    argv, here = sys.argv, Path.cwd()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    sys.argv = ["mergeplan", *words]
    os.chdir(cwd or here)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.chdir(here)
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
