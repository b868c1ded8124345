"""Names that nobody can guess, for what is in the making or on its way out."""

import re
import secrets

_PRIVATE = re.compile(r"\.mergeplan-[0-9a-f]{16}")


def private_name() -> str:
    """A name for a file or a folder of ours, in a folder of whomever."""
    return f".mergeplan-{secrets.token_hex(8)}"


def is_private(name: str) -> bool:
    """Whether a run of ours may have made it, of a folder or of a file that it was writing.

    >>> is_private(private_name()), is_private(".mergeplan.partial")
    (True, False)
    """
    return _PRIVATE.fullmatch(name) is not None
