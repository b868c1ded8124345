"""How much memory this process takes, as the system sees it."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MACHINE = Path("/proc/meminfo")
_BASE_LIMIT = 192 << 20
_LIMIT_PER_THREAD = 32 << 20
# Where the system does not say: what Python with this package takes.
_TYPICAL_BYTES = 32 << 20


def default_limit(threads: int) -> int:
    """Bytes of anonymous memory that a merge may take: 256 MiB at two threads."""
    return _BASE_LIMIT + _LIMIT_PER_THREAD * threads


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process now: its heap and stacks, no mapped files."""
    return _field("RssAnon") or _TYPICAL_BYTES


def available_bytes() -> int | None:
    """Memory that the system could still give without swapping; `None` where it does not say."""
    try:
        text = _MACHINE.read_text("ascii")
    except OSError:
        return None
    found = [line for line in text.splitlines() if line.startswith("MemAvailable:")]
    return int(found[0].split()[1]) << 10 if found else None


class MemoryWatch:
    """Remembers the highest of some samples."""

    def __init__(self) -> None:
        self._peak = _field("RssAnon")

    def sample(self) -> None:
        self._peak = max(self._peak, _field("RssAnon"))

    def peak_anonymous_bytes(self) -> int:
        """0 where the system does not say."""
        return self._peak

    def peak_resident_bytes(self) -> int:
        """The highest ever, by the system's own count; 0 where it keeps none."""
        try:
            import resource
        except ImportError:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return _field("VmHWM") or (peak if sys.platform == "darwin" else peak << 10)


def _field(name: str) -> int:
    try:
        text = _STATUS.read_text("ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Without Python's search for cycles, which goes through everything again and again while many
    objects are made, and finds none among those of a plan: two fifths of the time of a large one.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
