"""`rank_pattern` and `alpha_pattern` of an adapter: which value a module has, as peft matches it.

A pattern comes from a file, and a regular expression can take longer than anybody waits. Names and
alternatives of names, which is what peft writes, are compared directly; for the rest an engine is
asked that can be stopped.
"""

import re
import time
import warnings
from collections.abc import Mapping
from math import prod

from mergeplan.display.text import shown
from mergeplan.errors import InputError

# What nothing but `.` and `|` has a meaning in; a line break would be one that `.` does not match.
_PLAIN = re.compile(r"[\w.|-]*")
_LONGEST = 2_000
# Counts such as `{2,3}`, all multiplied: the engine writes them out before it begins.
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")
_MOST_COUNTED = 1_000
# For all modules of an adapter together.
_SECONDS = 1.0
_WAY_OUT = "write the ends of the modules' names, joined by `|`"


class Patterns:
    """The entries of one setting.

    Args:
        entries: What the file has; what is no mapping has no entries, as in peft.
        where: The file, for messages.
    """

    def __init__(self, entries: object, where: str) -> None:
        self._entries = dict(entries) if isinstance(entries, Mapping) else {}
        self._where = where
        self._left = _SECONDS

    def value(self, module: str, default: object) -> object:
        """The value of the first pattern that ends a module's name.

        Raises:
            InputError: A pattern is none, or takes too long.
        """
        for pattern, value in self._entries.items():
            plain = _PLAIN.fullmatch(pattern) and module.isprintable()
            if _ends_plainly(pattern, module) if plain else self._ends(pattern, module):
                return value
        return default

    def _ends(self, pattern: str, module: str) -> bool:
        import regex

        if len(pattern) > _LONGEST or _counted(pattern) > _MOST_COUNTED:
            raise InputError(f"{self._where}: {shown(pattern)} is too large a pattern", _WAY_OUT)
        begun = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(whole := rf"(.*\.)?({pattern})")  # peft's engine knows less
            compiled = regex.compile(whole, regex.VERSION0)
            return compiled.fullmatch(module, timeout=self._left) is not None
        except TimeoutError as error:
            raise InputError(
                f"{self._where}: {shown(pattern)} takes too long to match", _WAY_OUT
            ) from error
        except Exception as error:
            # Each engine has faults of its own; its words are for those who wrote the pattern.
            raise InputError(
                f"{self._where}: {shown(pattern)} is no pattern: {shown(error)}",
                "write a regular expression, or the end of a module's name",
            ) from error
        finally:
            self._left = max(self._left - (time.monotonic() - begun), 0.001)


def _counted(pattern: str) -> int:
    counts = (number for match in _COUNT.finditer(pattern) for number in match.groups() if number)
    # A length alone can be thousands of digits.
    return prod(int(number) if len(number) < 5 else _MOST_COUNTED + 1 for number in counts)


def _ends_plainly(pattern: str, module: str) -> bool:
    """As `(.*\\.)?(pattern)` matches a whole name, where `.` stands for any character."""
    for name in pattern.split("|"):
        end = module[len(module) - len(name) :] if name else ""
        behind_a_point = len(end) == len(module) or module[: len(module) - len(end)].endswith(".")
        same = len(end) == len(name) and all(
            mine in (".", theirs) for mine, theirs in zip(name, end, strict=True)
        )
        if same and behind_a_point:
            return True
    return False
