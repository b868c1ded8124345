"""The command in a process of its own, forked from one that has imported it already.

It does what a new one does, without seconds of imports. Where those count, or the memory that a
process begins with, take `cli_process`, or `runs.start` with `fresh`.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver") if os.name == "posix" else None
if _SERVER:
    _SERVER.set_forkserver_preload(["mergeplan.cli.merge", "mergeplan.merging.merge"])


class Forked:
    """As much of `subprocess.Popen` as the tests of stopped processes need."""

    def __init__(self, words: list[str], cwd: Path, env: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._written = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        self._process = _SERVER.Process(target=_become, args=(words, cwd, env, self._written))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, ...]:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("mergeplan", timeout)
        texts = tuple(path.read_text() for path in self._written)
        self._folder.cleanup()
        return texts


def _become(words: list[str], cwd: Path, env: dict[str, str], written: list[Path]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(written, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["mergeplan", *words]
    from mergeplan.cli import main

    main()
