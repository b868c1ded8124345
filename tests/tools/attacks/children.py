"""The command in forked processes, where attacks can be many: no second of imports before each.

A child begins where `mergeplan.cli.main` does. It stops itself until `strace`, where that is asked
for, has taken hold of it, so that system calls are counted from the first one of the command.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mergeplan.cli import main

ESCAPED = 99  # the exit code of a child that an exception left by the top
SLOWEST = 60.0  # seconds; a command that takes longer hangs
_LARGE = {
    "jinja2",
    "matplotlib",
    "matplotlib.figure",
    "scipy",
    "scipy.optimize",
    "tokenizers",
    "torch",
    "transformers",
    "transformers.modeling_utils",
}
_LARGE |= {f"transformers.models.{name}" for name in ("auto", "qwen2.modeling_qwen2")}
_IMPORTED = {"click", "mergeplan", "numpy", "pydantic", "pydantic_core", "yaml"}
_LONGEST = 700  # characters of what a command said that are shown
_WAITING = (signal.SIGINT, signal.SIGTERM)
_STRACE = "/usr/bin/strace"


@dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        code: Its exit code; that of a signal is negative.
        injected: Lines of strace's log with the calls that were tampered with.
    """

    words: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    injected: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [line for line in self.stderr.splitlines() if line]
        said = "\n      ".join(lines)[-_LONGEST:]
        text = f"`mergeplan {' '.join(self.words)}` ended with {self.code}: {said}"
        return "\n      ".join([text, *self.injected[:4]])


class Child:
    """A command in a process of its own, which has begun."""

    def __init__(
        self,
        words: Sequence[object],
        cwd: Path,
        *,
        notes: Path,
        strace: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        first: Callable[[], object] | None = None,
        last: Callable[[], object] | None = None,
    ) -> None:
        """Begin.

        Args:
            notes: A name for files beside the attacked folder: what is printed, and the log.
            strace: Its arguments, for a child that is traced.
            first: Called in the child before the command; `last` after it.
        """
        self.words = tuple(map(str, words))
        self.paths = [notes.with_name(f"{notes.name}.{end}") for end in ("out", "err", "log")]
        self._code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that comes before the command has begun waits for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITING)
        self.pid = os.fork()
        if self.pid == 0:
            _become(self.words, cwd, self.paths, bool(strace), env or {}, first, last)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._tracer = _trace(self.pid, strace, self.log) if strace else None

    @property
    def log(self) -> Path:
        """The system calls of a child that is traced."""
        return self.paths[2]

    def send(self, number: int) -> None:
        """Send a signal, unless the child has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def proceed(self, between: float = 0.02) -> None:
        """Let a child that was stopped go on, each time that it stops."""
        while self.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(between)

    def poll(self) -> int | None:
        """The exit code of a child that has ended."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def end(self, slowest: float = SLOWEST) -> Ended:
        """Wait for the child.

        Raises:
            TimeoutError: It hangs; it is killed.
        """
        deadline = time.monotonic() + slowest
        wait = 0.0005
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"`mergeplan {' '.join(self.words)}` took {slowest:.0f} s")
            time.sleep(wait)
            wait = min(2 * wait, 0.01)
        if self._tracer is not None:
            self._tracer.wait()
        out, err, log = (p.read_text("utf-8", "replace") if p.exists() else "" for p in self.paths)
        injected = tuple(line for line in log.splitlines() if "INJECTED" in line)
        assert self._code is not None
        return Ended(self.words, self._code, out, err, injected)


def command(
    words: Sequence[object], cwd: Path, notes: Path, slowest: float = SLOWEST, **more: Any
) -> Ended:
    """Run a command to its end; arguments as for `Child`."""
    return Child(words, cwd, notes=notes, **more).end(slowest)


def preload(words: Sequence[object], cwd: Path, notes: Path, *, every: bool = False) -> None:
    """Import what a command imports while it runs, so that its forks need not.

    Args:
        every: Also torch and transformers.
    """
    found = notes.with_suffix(".modules")

    ended = command(words, cwd, notes, last=lambda: found.write_text(json.dumps([*sys.modules])))
    assert ended.code == 0, ended
    for name in json.loads(found.read_text()):
        top = name.split(".")[0]
        if top in _IMPORTED | sys.stdlib_module_names or (every and name in _LARGE):
            with suppress(ImportError):  # some are no modules to import by a name
                importlib.import_module(name)
    gc.freeze()


def _become(
    words: Sequence[str],
    cwd: Path,
    paths: Sequence[Path],
    traced: bool,
    env: Mapping[str, str],
    first: Callable[[], object] | None,
    last: Callable[[], object] | None,
) -> NoReturn:
    """What the child does: it never returns into its parent's code."""
    code = ESCAPED
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in enumerate(paths[:2], 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        # As `mergeplan.system.signals` finds it, but for what comes before its first line.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(env)
        os.chdir(cwd)
        sys.argv = ["mergeplan", *words]
        if first:
            first()
        if traced:
            os.kill(os.getpid(), signal.SIGSTOP)
        code = _main()
        if last:
            last()
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _main() -> int:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITING)
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ESCAPED
    except KeyboardInterrupt:
        return 130  # it came before the first line of the command, which catches it
    return ESCAPED


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def _trace(pid: int, arguments: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Attach strace to a child that has stopped itself, and let it go."""
    _, ended = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(ended), f"the child ended before it began: {ended}"
    words = [_STRACE, "-f", "-qq", "-y", "-o", log, *arguments, "-p", str(pid)]
    tracer = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0" in status.read_text():
        if tracer.poll() is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert tracer.stderr is not None
            raise OSError(f"strace: {tracer.stderr.read().decode().strip()}")
        time.sleep(0.0005)
    time.sleep(0.001)  # from being held to being watched
    os.kill(pid, signal.SIGCONT)
    return tracer
