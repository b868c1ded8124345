"""The option of every command that plans merges."""

import click

mismatch_option = click.option(
    "--allow-vocabulary-mismatch",
    is_flag=True,
    help="Merge the rows of tokens as they stand, where one token has two ids.",
)
