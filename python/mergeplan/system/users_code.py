"""Python files that a user names, to be run: a scorer's, and those of merge methods."""

import sys
import traceback
from pathlib import Path
from types import ModuleType

from mergeplan.display.text import cut
from mergeplan.errors import InputError
from mergeplan.system import signals
from mergeplan.system.descriptors import stdout_to_stderr

# Files of merge methods that were allowed, for the commands that come next.
ALLOWED: list[Path] = []


def allowing() -> list[str]:
    """What a command needs to have the same merge methods."""
    return [word for path in ALLOWED for word in ("--allow-methods", str(path))]


@stdout_to_stderr()
def run_source(word: str, path: Path, source: str | bytes, module: ModuleType) -> None:
    """Run a file's text in a module; what it prints is no data of ours.

    Args:
        word: What it is, for messages.
        source: Bytes are read as Python reads files.

    Raises:
        InputError: It is no Python, or raises.
    """
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where data classes look for their module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        where = "" if error.lineno is None else f", line {error.lineno}"
        raise InputError(f"{word} `{path}`{where}: {error.msg}") from error
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(failed(word, path, error)) from error
    finally:
        # SIGTERM is a `SystemExit` too, of which the code makes what it likes.
        signals.raise_again()


def failed(word: str, path: Path, error: BaseException) -> str:
    """What a file's code has raised, with the line of the file."""
    trace = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in trace if frame.filename == str(path)]
    where = f", line {lines[-1]}" if lines else ""
    return f"{word} `{path}`{where}: {type(error).__name__}: {cut(error, 300)}"
