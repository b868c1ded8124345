"""One measured run: a whole process with its time and memory, or a plain copy."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from mergeplan.errors import SurroundingsError

_SAMPLE_SECONDS = 0.02
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Run:
    """What one process took.

    Attributes:
        anonymous_bytes: Peak of its anonymous memory (RssAnon), sampled every 20 ms; `None` where
            the system does not tell.
        resident_bytes: Peak of all its resident memory, mapped files included.
        phases: Seconds of its phases, where it printed them.
    """

    seconds: float
    anonymous_bytes: int | None
    resident_bytes: int | None
    phases: dict[str, float] = field(default_factory=dict)


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; it is killed if this call is interrupted.

    Args:
        environment: Variables beside this process's own.

    Raises:
        SurroundingsError: It failed; with the end of what it said.
    """
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})}
    # An installed program has its bytecode; to compile all modules anew takes us 0.1 s a process.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables
    )
    sampler = _Sampler(process.pid)
    try:
        printed, errors = process.communicate()
        seconds = time.perf_counter() - begun
    finally:
        process.kill()
        process.wait()
        sampler.stop()
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {process.returncode}"
        raise SurroundingsError(f"a measured process failed: {reason}", " ".join(command))
    return Run(seconds, sampler.anonymous_bytes, sampler.resident_bytes, _phases(printed))


def _phases(printed: bytes) -> dict[str, float]:
    """The phases in what `merge --json` prints; none of what else prints."""
    try:
        found = json.loads(printed)["phases"]
    except (ValueError, TypeError, KeyError):
        return {}
    return {str(name): float(seconds) for name, seconds in found.items()}


class _Sampler:
    """Watches a process's memory until it is told to stop."""

    def __init__(self, pid: int) -> None:
        self.anonymous_bytes: int | None = None
        self.resident_bytes: int | None = None
        self._status = Path(f"/proc/{pid}/status")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._sample() and not self._stopped.wait(_SAMPLE_SECONDS):
            pass

    def _sample(self) -> bool:
        """Note the memory; false where there is nothing left to watch.

        The kernel's own peak (VmHWM) is read rather than `ru_maxrss`, in which a child inherits the
        size of the process that started it.
        """
        try:
            lines = self._status.read_text().splitlines()
        except OSError:
            return False
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if "VmHWM" not in fields:
            return False
        self.anonymous_bytes = max(self.anonymous_bytes or 0, _bytes(fields["RssAnon"]))
        self.resident_bytes = max(self.resident_bytes or 0, _bytes(fields["VmHWM"]))
        return True


def _bytes(field: str) -> int:
    return 1024 * int(field.split()[0])


def read_all(path: Path) -> None:
    """Bring a file into the page cache."""
    buffer = bytearray(_PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def copy_floor(inputs: Sequence[Path], out: Path, threads: int) -> float:
    """Read every input byte once and write one model, without a sync; returns seconds.

    This is what no merge can undercut with these system calls. It runs in this process, so that no
    interpreter's start is counted; and twice, of which the second counts: a machine that hands idle
    memory back to its host is slow where memory is touched for the first time.

    Args:
        inputs: Files of one length.
        out: A new file, which stays.
        threads: Each takes an equal part of the length.
    """
    _copy(inputs, out, threads)
    out.unlink()
    return _copy(inputs, out, threads)


def _copy(inputs: Sequence[Path], out: Path, threads: int) -> float:
    length = inputs[0].stat().st_size
    begun = time.perf_counter()
    out.write_bytes(b"")
    failures: list[OSError] = []

    def part(start: int, end: int) -> None:
        buffer = memoryview(bytearray(_PIECE_BYTES))
        try:
            with ExitStack() as stack:
                target = stack.enter_context(out.open("r+b", buffering=0))
                sources = [stack.enter_context(path.open("rb", buffering=0)) for path in inputs]
                for offset in range(start, end, _PIECE_BYTES):
                    piece = buffer[: min(_PIECE_BYTES, end - offset)]
                    for source in sources:
                        source.seek(offset)
                        source.readinto(piece)
                    target.seek(offset)
                    target.write(piece)
        except OSError as error:
            failures.append(error)

    bounds = [length * number // threads for number in range(threads + 1)]
    workers = [threading.Thread(target=part, args=(start, end)) for start, end in pairwise(bounds)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begun
    if failures:
        raise failures[0]
    return seconds


def write_seconds(length: int, out: Path) -> float:
    """Seconds in which one thread writes so many bytes into a new file, without a sync.

    A file system lets one thread at a time write into a file, so no merge into one file takes less.
    """
    piece = memoryview(bytearray(min(length, 1 << 17)))  # as the core's blocks are
    seconds = []
    for _ in range(5):  # the fastest counts, as of the copy
        out.unlink(missing_ok=True)
        begun = time.perf_counter()
        with out.open("xb", buffering=0) as file:
            for _ in range(length // max(1, len(piece))):
                file.write(piece)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def mergeplan_command(
    config: Path, out: Path, threads: int, python: str = sys.executable
) -> list[str]:
    """How a user runs mergeplan."""
    command = [python, "-m", "mergeplan", "merge", str(config), str(out)]
    return [*command, "--quiet", "--threads", str(threads), "--json"]


def mergekit_command(config: Path, out: Path, threads: int) -> list[str]:
    """`mergekit-yaml`, in this interpreter."""
    main = "from mergekit.scripts.run_yaml import main; main()"
    command = [sys.executable, "-c", main, str(config), str(out)]
    return [*command, "--quiet", "--num-threads", str(threads)]
