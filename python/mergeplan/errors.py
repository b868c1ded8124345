"""Errors for people: what and where, then a hint. Every class carries its exit code."""

import re
from collections.abc import Sequence
from typing import Any, NoReturn

# Of one name or value in a message, and of a message.
_LONGEST_NAME, _LONGEST = 500, 1500
# Of the faults of one file, that are said with their lines.
MOST_FAULTS = 20
_LONG_NAME = re.compile(r"`([^`]{400})[^`]+([^`]{100})`")


class MergeplanError(Exception):
    """Something that a user can be told in one sentence.

    Args:
        message: What is wrong and where; lower case, no full stop, names in backticks.
        hint: What to do about it.

    Attributes:
        about: The value of a YAML file that it is about, where the message may not name it.
    """

    exit_code = 1
    about: str = ""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = legible(message)
        super().__init__(self.message)
        self.hint = hint = legible(hint) if hint else hint
        # Python prints notes below the message; before 3.11 there are none.
        if hint and hasattr(self, "add_note"):
            self.add_note(f"hint: {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.message, self.hint)

    def __str__(self) -> str:
        return self.message


def legible(message: str) -> str:
    """A message on one line, whatever the names and values from files in it are: control characters
    and halves of surrogate pairs are escaped, what is long is cut.
    """
    if not message.isprintable():
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        message = "".join(escaped)
    if len(message) > _LONGEST_NAME:
        message = _LONG_NAME.sub(r"`\1...\2`", message)
    return message if len(message) <= _LONGEST else f"{message[:1100]}...{message[-300:]}"


class InputError(MergeplanError, ValueError):
    """An input file, key or value is not what it must be.

    Attributes:
        excerpt: The line of the file, and below it a caret; empty where there is none.
        line: The line's number, from 1.
    """

    excerpt: str = ""
    line: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        place = {"about": self.about, "excerpt": self.excerpt, "line": self.line}
        return type(self), (self.message, self.hint), place

    @property
    def faults(self) -> "tuple[InputError, ...]":
        """All that is wrong; alone, it is this one."""
        return (self,)


class SeveralFaultsError(InputError):
    """A file has several faults; the message is that of the first, and how many follow.

    Args:
        faults: All of them, two or more.
    """

    def __init__(self, faults: Sequence[InputError]) -> None:
        self._faults = tuple(faults)
        first, *others = self._faults
        rest = "another fault" if len(others) == 1 else f"{len(others)} other faults"
        super().__init__(f"{first.message}; and {rest}", first.hint)
        if hasattr(self, "add_note"):  # what a traceback shows below
            for other in others[: MOST_FAULTS - 1]:
                hint = f" (hint: {other.hint})" if other.hint else ""
                self.add_note(f"and: {other.message}{hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._faults,)

    @property
    def faults(self) -> tuple[InputError, ...]:
        return self._faults


def raise_all(errors: Sequence[InputError]) -> NoReturn:
    """Raise one fault as it is, several as one.

    Raises:
        InputError: Always.
    """
    faults = [fault for error in errors for fault in error.faults]
    raise faults[0] if len(faults) == 1 else SeveralFaultsError(faults)


class MissingInputError(InputError, FileNotFoundError):
    """An input file or tensor is not there."""


class SeveralMetricsError(InputError):
    """A table has several metrics, and none was named.

    Args:
        names: All of them.
        metric: The likeliest.
    """

    def __init__(self, names: str, metric: str) -> None:
        self.names, self.metric = names, metric
        super().__init__(
            f"several metrics were measured: {names}", f"name one: `--metric {metric}`"
        )

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.names, self.metric)


class ContentError(InputError):
    """What the inputs hold cannot be merged, found while the merge ran; resuming cannot mend it."""


class SurroundingsError(MergeplanError, OSError):
    """No space, no permission, or an output that is in the way."""


class InternalError(MergeplanError):
    """A fault of mergeplan itself."""

    exit_code = 3


class UnreachableError(MergeplanError):
    """Nothing that was measured or predicted reaches the target."""

    exit_code = 4


def nearest(word: str, known: list[str]) -> str | None:
    """A hint that names the nearest of `known`, if one is near.

    Letters that changed places are nearer than letters that are missing.

    >>> nearest("densty", ["weight", "density"])
    'did you mean `density`?'
    >>> nearest("modles", ["modules", "models"])
    'did you mean `models`?'
    """
    from difflib import get_close_matches

    if len(word) > 100:
        return None
    swapped = [name for name in known if sorted(name) == sorted(word)]
    matches = swapped or get_close_matches(word, known, n=1)
    return f"did you mean `{matches[0]}`?" if matches else None
