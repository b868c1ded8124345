"""Run a file of merge methods that the user allows, and have them in other processes too."""

import copyreg
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mergeplan.config.known import find_method
from mergeplan.config.methods import Code, Method
from mergeplan.custom.declare import DECLARED, Running, being_run
from mergeplan.errors import InputError
from mergeplan.system.files import expanded
from mergeplan.system.reading import CODE, read_bytes
from mergeplan.system.users_code import ALLOWED, run_source

WORD = "methods"


def allow_methods(file: Path | str) -> tuple[str, ...]:
    """Run a file that declares methods; configs and pools can name them from then on.

    Args:
        file: Python source. It is run as it is, so it must be one that you trust.

    Returns:
        The methods' names.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be run, declares no method, or one whose name is taken.

    Example:
        >>> import mergeplan, pathlib
        >>> file = pathlib.Path("mine.py")
        >>> _ = file.write_text('''
        ... import mergeplan
        ... @mergeplan.method("halfway")
        ... def halfway(block):
        ...     return block.base + 0.5 * block.deltas.mean(axis=0)
        ... ''')
        >>> mergeplan.allow_methods(file)
        ('halfway',)
    """
    path = expanded(file)
    source = read_bytes(path, CODE, given=True)
    # What a pipe resolves to cannot be opened, or read again.
    found = _run(path.resolve() if path.is_file() else path, source)
    if path not in ALLOWED:
        ALLOWED.append(path)
    return found


def _run(path: Path, source: bytes) -> tuple[str, ...]:
    module = ModuleType(f"mergeplan_methods_{hashlib.sha256(source).hexdigest()[:16]}")
    being_run.append(Running(path, source))
    try:
        run_source(WORD, path, source, module)
    finally:
        being_run.pop()
    found = tuple(name for name, one in DECLARED.items() if one.code.source == source)
    if not found:
        raise InputError(
            f"{WORD} `{path}`: none are declared", "decorate a function with `@mergeplan.method`"
        )
    return found


def load_again(name: str, code: Code) -> Method:
    """The method that another process has, by the file that it has sent.

    Raises:
        InputError: It cannot be run here.
    """
    if name not in DECLARED or DECLARED[name].code.source != code.source:
        find_method(name)  # of a package, which may import what is its own
    if name not in DECLARED or DECLARED[name].code.source != code.source:
        _run(code.file, code.source)
    return DECLARED[name].method


def _reduced(method: Method) -> tuple[Callable[..., Method], tuple[Any, ...]]:
    return method.__reduce__() if method.code is None else (load_again, (method.name, method.code))


copyreg.pickle(Method, _reduced)
