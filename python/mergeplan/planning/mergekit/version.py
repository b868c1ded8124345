"""Whether mergekit is there, in the version that mergeplan was written against."""

import importlib.metadata

from mergeplan.errors import InputError, MissingInputError

VERSION = "0.1.5"
INSTALL = "pip install 'mergeplan[mergekit]'"


def require_mergekit(what: str) -> None:
    """Refuse to go on without mergekit 0.1.5; mergekit itself is not imported.

    Args:
        what: What needs it, for the message.

    Raises:
        MissingInputError: It is not installed. The hint is the command that installs it.
        InputError: Another version is.
    """
    try:
        found = importlib.metadata.version("mergekit")
    except importlib.metadata.PackageNotFoundError:
        raise MissingInputError(f"{what} needs mergekit, which is not installed", INSTALL) from None
    if found != VERSION:
        raise InputError(f"{what} needs mergekit {VERSION}, found {found}", INSTALL)
