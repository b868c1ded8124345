"""The option of every command that writes one file."""

import click

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
