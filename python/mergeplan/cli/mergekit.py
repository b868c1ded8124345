"""`mergeplan mergekit`."""

import gc
import os
from itertools import pairwise
from pathlib import Path

import click

from mergeplan.cli.messages import warn
from mergeplan.cli.options.own_methods import allow_methods_option
from mergeplan.cli.options.path import complete_files

# What mergekit-yaml takes is mergekit's to say; only `--help` is ours.
PASS_ON = {"ignore_unknown_options": True}


@click.command("mergekit", context_settings=PASS_ON)
@allow_methods_option
@click.argument(
    "arguments",
    metavar="CONFIG.yml OUT_DIR [FLAGS]",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete_files,
)
def command(arguments: tuple[str, ...]) -> None:
    """Run mergekit's own mergekit-yaml, with mergeplan's kernels behind its methods.

    Everything else is mergekit's: what it plans, loads, writes and prints, and FLAGS, which
    `mergekit-yaml --help` lists. The kernels take the tensors that lie on the CPU; masks are drawn
    from `--random-seed`, else the config's `random_seed`, else 0. `mergeplan merge` is several
    times faster still, in a fraction of the memory.
    """
    from mergeplan.errors import InputError, MergeplanError
    from mergeplan.mergekit_plugin import register

    # Importing makes half a million objects that stay; to search them for garbage again and again
    # takes 1.1 of 5.7 seconds.
    gc.disable()
    usage = register()
    import torch
    from mergekit.scripts.run_yaml import main

    gc.freeze()
    gc.enable()
    # `--random-seed` seeds torch again.
    torch.manual_seed(_seed_of(arguments))
    try:
        main.main(list(arguments), prog_name="mergeplan mergekit", standalone_mode=False)
    except (MergeplanError, click.ClickException, OSError):
        raise
    except Exception as error:
        if os.environ.get("MERGEPLAN_TRACEBACK"):
            raise
        raise InputError(
            f"mergekit stopped: {type(error).__name__}: {error}",
            "`mergeplan inspect CONFIG.yml` finds most faults beforehand;"
            " MERGEPLAN_TRACEBACK=1 shows where mergekit stopped",
        ) from error
    finally:
        # Objects that are frozen at the end count as leaked for some libraries, which say so.
        gc.unfreeze()
    if "--quiet" not in arguments:
        click.echo(usage.summary(), err=True)


def _seed_of(arguments: tuple[str, ...]) -> int:
    """The config's own seed, which mergekit passes over; its flag still comes after it."""
    from mergeplan.config.seed import random_seed_in, seed_of

    paths = [Path(word) for word in arguments if word.endswith((".yml", ".yaml"))]
    written = random_seed_in(paths[0]) if paths else None
    given = next((int(value) for value in _values(arguments) if value.isdecimal()), None)
    seed, warnings = seed_of(written, given, "the config")
    if "--quiet" not in arguments:
        for warning in warnings:
            warn(warning)
    return seed


def _values(arguments: tuple[str, ...]) -> list[str]:
    """What `--random-seed` was given."""
    flag = "--random-seed"
    apart = [value for word, value in pairwise(arguments) if word == flag]
    return [*apart, *(w.partition("=")[2] for w in arguments if w.startswith(f"{flag}="))]
