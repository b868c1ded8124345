"""Options shared by the commands that read measurements."""

import click

domain_option = click.option(
    "--domain", help="Fit this domain. [default: the macro mean, or the only one there is]"
)
method_option = click.option("--method", help="Only the rows with this method label.")
pool_size_option = click.option(
    "--pool-size",
    type=click.IntRange(1),
    help="Number of experts that there are. [default: from the file]",
)
