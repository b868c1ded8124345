"""`--allow-methods`, of every command that reads configs or pools."""

from pathlib import Path

import click

from mergeplan.cli.options.path import PATH


def _allow(_context: click.Context, _option: click.Parameter, files: tuple[Path, ...]) -> None:
    if files:
        from mergeplan.custom.loading import allow_methods

        for file in files:
            allow_methods(file)


# Nothing is left to pass on: configs and pools can name the methods then.
allow_methods_option = click.option(
    "--allow-methods",
    metavar="FILE",
    type=PATH,
    multiple=True,
    expose_value=False,
    is_eager=True,
    callback=_allow,
    help="Run a Python file that declares merge methods, for the config or the pool to name. Can be"
    " repeated; only files that you trust.",
)
