"""The hub's client: asked once it is sure that it can be, and what it raises told in our words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mergeplan.display.text import cut
from mergeplan.errors import MergeplanError, MissingInputError, SurroundingsError

_LOGIN = (
    "`hf auth login`, or set HF_TOKEN to a token that may write; huggingface.co/settings/tokens"
)
_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]+")
_NAME = re.compile(r"[\w-][\w.-]*(?<![.-])/(?![.-])[\w.-]{1,96}(?<![.-])")
# What no HTTP library raises.
_OUR_FAULTS = (AttributeError, KeyError, TypeError)


def check_repository(name: str) -> None:
    """Check the name of a repository.

    Args:
        name: As a user gives it.

    Raises:
        ValueError: The hub takes no such name; it says which it takes.
    """
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
        raise ValueError(
            f"expected ORG/NAME (letters, digits, and `-`, `_` and `.` within them), found `{name}`"
        )


def open_hub(*, quiet: bool) -> Any:
    """huggingface_hub's `HfApi`, which has the token and the address from its usual places.

    Args:
        quiet: Show none of its progress.

    Returns:
        The client, untyped: it may not be installed.

    Raises:
        MissingInputError: It is not installed.
        SurroundingsError: It must not reach out, or has no token.
    """
    try:
        import huggingface_hub
        from huggingface_hub import HfApi, constants, get_token
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise MissingInputError(
            "`--push-to-hub` needs huggingface_hub", "`pip install 'mergeplan[hub]'`"
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise SurroundingsError(
            "HF_HUB_OFFLINE is set: nothing can be pushed to the hub",
            "unset it, or merge without `--push-to-hub`",
        )
    if not get_token():
        raise SurroundingsError("there is no token for the hub", _LOGIN)
    # What it tries again is its own affair; what fails is told below.
    huggingface_hub.logging.set_verbosity_error()
    if quiet:
        disable_progress_bars()
    return HfApi()


@contextmanager
def telling(what: str, hint: str | None = None) -> Iterator[None]:
    """Turn what the client raises into one sentence.

    Whatever HTTP library it has raises its own errors through it, and these have no common class.

    Args:
        what: What is done, behind "cannot".
        hint: What to do, where the error does not say more.

    Raises:
        SurroundingsError: What the client raises; what a fault of ours raises goes through.
    """
    try:
        yield
    except (MergeplanError, *_OUR_FAULTS):
        raise
    except Exception as error:
        status = status_of(error)
        if status == 401:
            raise SurroundingsError(f"cannot {what}: the hub refuses the token", _LOGIN) from error
        if status == 403 and hint is None:
            hint = "use a token that may write there; huggingface.co/settings/tokens"
        raise SurroundingsError(f"cannot {what}: {_reason(error)}", hint) from error


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error is about, or one that led to it.

    Args:
        error: What the client raised.

    Returns:
        The status; `None` where the error is about none, as where no connection was made.
    """
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _reason(error: BaseException) -> str:
    """The first lines of an error and of what led to it, without what signs an address."""
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(said) < 3:
        status = status_of(cause)
        told = getattr(cause, "server_message", None)
        text = f"the hub answers {status}: {told}" if told and status else str(cause)
        line = next((line.strip() for line in text.splitlines() if line.strip()), "")
        said.append(line.rstrip(".") or type(cause).__name__)
        if told or getattr(cause, "response", None) is not None:
            break
        cause = cause.__cause__
    return cut(_QUERY.sub(r"\1", ": ".join(dict.fromkeys(said))), 400)
