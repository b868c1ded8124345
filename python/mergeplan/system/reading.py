"""Files of the user, read whole: what is missing or no text is said in one way."""

from pathlib import Path

from mergeplan.errors import InputError, MissingInputError


def read_bytes(path: Path, what: str = "", hint: str | None = None) -> bytes:
    """The bytes of a file.

    Args:
        what: How messages call the file: `pool`, `costs`.
        hint: What to do where it cannot be read.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read.
    """
    named = f"{what} `{path}`".lstrip()
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot open {named}: no such file", hint) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read {named}: {why}", hint) from error


def decode(raw: bytes, path: Path) -> str:
    """The text of a file's bytes; a byte order mark is passed over.

    Raises:
        InputError: It is no UTF-8; the message names the line.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"`{path}`, line {number}: expected UTF-8, found byte 0x{raw[error.start]:02x}",
            "convert the file to UTF-8; compressed files must be unpacked first",
        ) from error


def read_text(path: Path, what: str = "", hint: str | None = None) -> str:
    """The text of a file, where every line ends in `\\n`; see `read_bytes` and `decode`.

    Raises:
        MissingInputError, InputError: As for those.
    """
    text = decode(read_bytes(path, what, hint), path)
    return text.replace("\r\n", "\n").replace("\r", "\n")
