"""`mergeplan check`."""

from pathlib import Path

import click

from mergeplan.cli.documents import print_document
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import PATH


@click.command("check")
@click.argument("path", metavar="CONFIG_OR_POOL", type=PATH)
@allow_methods_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def command(ctx: click.Context, path: Path, as_json: bool) -> None:
    """Say everything that is wrong with a config or a pool, or what it would do.

    Keys and values, each with its line; models that are not there or do not fit; texts. Nothing is
    written, and no weight is read. Exit code 1: there are faults.
    """
    from mergeplan.onboarding.check import check

    found = check(path)
    if as_json:
        print_document("check", found.data())
    else:
        click.echo(found.summary(), err=bool(found.faults))
    if found.faults:
        ctx.exit(1)
