"""What a benchmark ran on."""

import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

from mergeplan._native import __version__


def has_mergekit() -> bool:
    """Whether this interpreter could run mergekit; it is not imported."""
    from importlib.util import find_spec

    return find_spec("mergekit") is not None


def describe_machine(with_mergekit: bool) -> dict[str, Any]:
    """Where the numbers come from."""
    from importlib.metadata import PackageNotFoundError, version

    machine: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "mergeplan": __version__,
        "date": date.today().isoformat(),
    }
    for name in ("mergekit", "torch") if with_mergekit else ():
        try:
            machine[name] = version(name)
        except PackageNotFoundError:
            machine[name] = None
    return machine


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
