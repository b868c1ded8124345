"""`--anyway`, of the commands that write a verdict's merge."""

import click

anyway_option = click.option(
    "--anyway",
    is_flag=True,
    help="Write the best merge's YAML also where merging does not pay or the target is missed.",
)
