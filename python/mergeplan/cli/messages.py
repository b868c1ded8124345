"""What commands say on stderr."""

from collections.abc import Sequence

import click

from mergeplan.cli.streams import ReaderLeftError
from mergeplan.errors import SurroundingsError, legible

_TEXTS = 5  # that are named one by one


class MisuseError(click.UsageError):
    """Options that are no use as they were given, where a hint says more than the help."""

    def __init__(self, message: str, hint: str | None) -> None:
        super().__init__(message)
        self.hint = hint


def warn(message: str) -> None:
    """A warning on stderr."""
    click.echo(f"warning: {legible(message)}", err=True)


def warn_left_out(texts: Sequence[str]) -> None:
    """Of texts that are not scored, the first by name."""
    for message in texts[:_TEXTS]:
        warn(message)
    if len(texts) > _TEXTS:
        warn(f"{len(texts) - _TEXTS} more texts are left out")


def report(line: str) -> None:
    """A word on stdout about work that is done: who closed that wants none."""
    try:
        click.echo(line)
    except (ReaderLeftError, SurroundingsError):
        return
