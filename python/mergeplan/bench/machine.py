"""What a benchmark ran on."""

import os
import platform
from datetime import date
from typing import Any

from mergeplan._native import __version__
from mergeplan.system.machine import cpu_model, memory_bytes, usable_cores


def has_mergekit() -> bool:
    """Whether this interpreter could run mergekit; it is not imported."""
    from importlib.util import find_spec

    return find_spec("mergekit") is not None


def describe_machine(with_mergekit: bool) -> dict[str, Any]:
    """Where the numbers come from."""
    from importlib.metadata import PackageNotFoundError, version

    machine: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": memory_bytes(),
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
