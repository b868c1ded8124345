"""Files of a machine's packages, and their text."""

import gzip
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_LISTS = Path("/var/lib/dpkg/info")
# Longer files are data or bundles of others.
_LONGEST = 2_000_000


def installed() -> Iterator[tuple[str, Path]]:
    """Files of the installed Debian packages, each with its source package, the sum of which is
    what one project wrote; nothing where there is no dpkg."""
    if not _LISTS.is_dir():
        return
    form = "${Package} ${source:Package}\n"
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True
    )
    source = dict(line.split() for line in said.stdout.splitlines())
    for listing in sorted(_LISTS.glob("*.list")):
        package = listing.stem.split(":")[0]
        for line in listing.read_text("utf-8").splitlines():
            yield source.get(package, package), Path(line)


def unpacked(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder; the package is the first folder below it, without its version."""
    for inside, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(inside).relative_to(folder).parts
        for name in sorted(files) if below else ():
            yield re.sub(r"-\d.*", "", below[0]).lower().replace("-", "_"), Path(inside, name)


def text_of(path: Path) -> str:
    """A file's text, unpacked, of a catalogue the translations; empty where it holds none."""
    try:
        if path.is_symlink() or not 0 < path.stat().st_size <= _LONGEST:
            return ""
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return _translations(raw) if path.suffix == ".mo" else raw.decode()
    except (OSError, EOFError, UnicodeDecodeError, struct.error):
        return ""


def _translations(raw: bytes) -> str:
    """Of a GNU message catalogue (gettext manual, "The Format of GNU MO Files"), without its head.

    >>> _translations(b"")
    Traceback (most recent call last):
        ...
    struct.error: unpack_from requires a buffer of at least 20 bytes for unpacking 20 bytes at \
offset 0 (actual buffer size is 0)
    """
    order = "<" if raw[:4] == b"\xde\x12\x04\x95" else ">"
    *_, count, _, at = struct.unpack_from(f"{order}5I", raw)
    found = []
    for number in range(1, count):
        length, offset = struct.unpack_from(f"{order}2I", raw, at + 8 * number)
        found.append(raw[offset : offset + length].replace(b"\0", b"\n").decode())
    return "\n".join(found)
