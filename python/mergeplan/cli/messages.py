"""What commands say on stderr."""

import click

from mergeplan.cli.streams import ReaderLeftError
from mergeplan.errors import SurroundingsError, legible


def warn(message: str) -> None:
    """A warning on stderr."""
    click.echo(f"warning: {legible(message)}", err=True)


def report(line: str) -> None:
    """A word on stdout about work that is done: who closed that wants none."""
    try:
        click.echo(line)
    except (ReaderLeftError, SurroundingsError):
        return
