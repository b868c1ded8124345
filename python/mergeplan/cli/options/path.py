"""A path on the command line."""

from pathlib import Path
from typing import Any

import click


class AnyPath(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A path, judged by what opens it; an empty one, as of an unset variable, is a mistake."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Make a `Path` of it."""
        if value == "":
            self.fail("expected a path, found nothing", param, ctx)
        return Path(value)


PATH = AnyPath()
