"""The file system, faults on demand, and what was compiled."""

from pathlib import Path

def exchange(a: Path | str, b: Path | str) -> None:
    """Swap two names of the file system.

    Raises:
        MissingInputError, SurroundingsError: The system refused.
    """

def rename_new(source: Path | str, target: Path | str) -> bool:
    """Rename a file or a folder, unless something has that name already, be it a broken link.

    Returns:
        Whether it was renamed.

    Raises:
        MissingInputError, SurroundingsError: The system refused.
    """

def fault(point: str) -> None:
    """Pass a point at which `MERGEPLAN_FAULT` may ask for a fault; see `rust/core/src/fault.rs`.

    Raises:
        OSError: The fault that was asked for.
    """

def tell_bus_errors() -> None:
    """Let a page of a mapped input that cannot be read end the process with 1 and a message.

    For a command's own process. A handler that another library has set stays.
    """

def build_info() -> dict[str, object]:
    """What was compiled: `debug` (bool) and `target` (the processor's family)."""
