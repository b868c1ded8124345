"""Options of which tensors a merge writes, and how: for `merge` and whatever looks ahead to one."""

from typing import Any

import click


def tensor_options(command: Any) -> Any:
    """Add `--allow-left-out` and `--packed-experts`, fields of `MergeOptions`."""
    left_out = click.option(
        "--allow-left-out",
        metavar="PATTERN",
        multiple=True,
        help="Leave tensors out of the output that not every model has: a name, with * for any part"
        " of it. May be given several times.  [default: refuse]",
    )
    packed = click.option(
        "--packed-experts",
        is_flag=True,
        help="Write a mixture's experts packed into one tensor a layer, as mergekit does, and not"
        " as the donor's files have them.",
    )
    return left_out(packed(command))
