"""A path on the command line."""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


def complete_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete files; without a word of ours it would offer none."""
    return [CompletionItem(incomplete, type="file")]


class AnyPath(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A path, judged by what opens it; an empty one, as of an unset variable, is a mistake."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a `Path` of it."""
        if value == "":
            self.fail("expected a path, found nothing", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What a shell offers."""
        return complete_files(ctx, param, incomplete)


PATH = AnyPath()
