"""What `merge --push-to-hub` does beside the merge."""

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mergeplan.hub.push import Prepared, Push, Pushed
    from mergeplan.system.progress import ProgressLine


def publishing_options(command: Any) -> Any:
    """Add `--license`, `--push-to-hub` and `--public`."""
    licence = click.option(
        "--license",
        "licence",
        metavar="ID",
        help="The licence of the merge, by the hub's word for it, such as apache-2.0.  [default:"
        " that in which the cards of all its models agree]",
    )
    push = click.option(
        "--push-to-hub",
        metavar="ORG/NAME",
        callback=_repository,
        help="Then verify the merge, and push it to this repository of the hub, which is made; what"
        " may forbid it is asked before the merge.",
    )
    public = click.option(
        "--public", is_flag=True, help="Let all see that repository.  [default: private]"
    )
    return licence(push(public(command)))


def _repository(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    if name is None:
        return None
    from mergeplan.hub.client import check_repository

    try:
        check_repository(name)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return name


def push_to(
    name: str | None, *, many: bool, card: bool, public: bool, licence: str | None, quiet: bool
) -> "Push | None":
    """The push that is asked for; options that do not go with it are refused."""
    if name is None:
        if public:
            raise click.UsageError("`--public` goes with `--push-to-hub`")
        return None
    if many or not card:
        other = "--many" if many else "--no-write-model-card"
        raise click.UsageError(f"`--push-to-hub` and `{other}` exclude each other")
    from mergeplan.hub.push import Push

    return Push(name, public=public, licence=licence, quiet=quiet or not sys.stderr.isatty())


def push_merged(
    push: "Push", prepared: "Prepared", threads: int | None, line: "ProgressLine", again: str
) -> "Pushed":
    """Push a merge that has run.

    Args:
        again: The command that goes on, which is said where it can.
    """
    goes_on = False
    try:
        files = push.verified(prepared, threads, line)
        line.clear()
        goes_on = True
        return push.send(prepared, files)
    except BaseException as error:
        line.clear()
        # What was stopped goes on too; what was refused does not.
        if goes_on or not isinstance(error, Exception):
            click.echo(
                f"the merge is whole in `{prepared.merge.out}`; `{again}` pushes it", err=True
            )
        raise
