"""What the card of one model says of its licence."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.display.text import printable, shown
from mergeplan.errors import InputError, MissingInputError
from mergeplan.system.reading import Kind, decode, read_bytes
from mergeplan.system.yamlfile import parse_yaml

_README = Kind(1_000_000)
# As the hub looks for it: empty lines may stand before.
_HEAD = re.compile(rb"\s*---[ \t]*\n(?:(.*?)\n)?---[ \t]*(?:\n|$)", re.DOTALL)
_OPENED = re.compile(rb"\s*---[ \t]*(?:\n|$)")
_HEADLESS = re.compile(rb"^[ \t]*licen[cs]es?[ \t]*:", re.MULTILINE)
_KEYS = ("license", "licence", "licenses", "licences")
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_LINK = re.compile(r"https?://.+|[^:]+")
_LONGEST = 300
# The hub's list, https://huggingface.co/docs/hub/repositories-licenses: first those under which a
# work made of several may get another one.
PERMISSIVE = (
    *("afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "ecl-2.0", "etalab-2.0", "isc"),
    *("mit", "ms-pl", "ncsa", "odc-by", "pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
)
ON_HUB = (
    *PERMISSIVE,
    *("agpl-3.0", "apple-amlr", "apple-ascl", "bigcode-openrail-m", "bigscience-bloom-rail-1.0"),
    *("bigscience-openrail-m", "c-uda", "cc", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"),
    *("cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cdla-sharing-1.0"),
    *("creativeml-openrail-m", "deepfloyd-if-license", "epl-1.0", "epl-2.0", "eupl-1.1"),
    *("eupl-1.2", "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0"),
    *("gpl-3.0", "grok2-community", "h-research", "intel-research", "lgpl", "lgpl-2.1"),
    *("lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4"),
    *("lppl-1.3c", "mpl-2.0", "odbl", "ofl-1.1", "openmdw-1.0", "openrail", "openrail++"),
    *("osl-3.0", "other", "unknown"),
)


@dataclass(frozen=True)
class Licence:
    """What a card says of a licence.

    Attributes:
        ids: The hub's words for it, such as `apache-2.0`; `other` is one that has a name.
        name, link: Of `other`: what it is called, and where it is to be read.
    """

    ids: tuple[str, ...]
    name: str | None = None
    link: str | None = None

    def __str__(self) -> str:
        return printable(" and ".join([*self.ids, *([f"({self.name})"] if self.name else ())]))

    @property
    def is_known(self) -> bool:
        """Whether it says which: `unknown` does not, and `other` without a name."""
        return self.ids != ("unknown",) and (self.ids != ("other",) or self.name is not None)

    def says(self, word: re.Pattern[str]) -> bool:
        """Whether a word is in its id or its name."""
        return any(word.search(normal(text)) for text in (*self.ids, self.name or ""))

    def front_matter(self) -> dict[str, Any]:
        """The keys of a card."""
        ids: str | list[str] = self.ids[0] if len(self.ids) == 1 else list(self.ids)
        named = {"license_name": self.name, "license_link": self.link}
        return {"license": ids, **{key: value for key, value in named.items() if value}}


@dataclass(frozen=True)
class Unreadable:
    """A card that may say something of a licence, and cannot be read.

    Attributes:
        why: With the file.
    """

    why: str

    def __str__(self) -> str:
        return "one that cannot be read"


def normal(text: str) -> str:
    """Words for a licence as the hub writes them.

    >>> normal("CC BY-NC_ND 4.0")
    'cc-by-nc-nd-4.0'
    """
    return re.sub(r"[\s_]+", "-", text.strip().lower())


def licence_word(text: str) -> str:
    """The hub's word for a licence.

    Raises:
        InputError: It is none by its form.
    """
    word = normal(text)
    if not _ID.fullmatch(word):
        raise InputError(
            f"`license`: expected the hub's word for one, such as `apache-2.0`, found {shown(text)}"
        )
    return word


def licence_of(folder: Path) -> Licence | Unreadable | None:
    """What the head of a model's README.md says; a card may be anybody's, and hold anything.

    Returns:
        `None` where it states none. What cannot be read in full may state any.
    """
    readme = folder / "README.md"
    try:
        raw = read_bytes(readme, _README)
    except MissingInputError:
        return Unreadable(f"`{readme}` is a link to nothing") if readme.is_symlink() else None
    except InputError as error:
        return Unreadable(error.message)
    try:
        return _of_head(_head(raw, readme))
    except InputError as error:
        why = error.message
        return Unreadable(why if why.startswith(f"`{readme}`") else f"`{readme}`: {why}")


def _head(raw: bytes, readme: Path) -> dict[str, Any]:
    """The keys of a card's head.

    Raises:
        InputError: It cannot be read in full.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        decode(raw, readme)
    raw = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = _HEAD.match(raw)
    if found is None:
        if _OPENED.match(raw):
            raise InputError("the head that `---` opens has no closing `---`")
        if _HEADLESS.search(raw):
            raise InputError("`license` stands outside of a head, which `---` opens and closes")
        return {}
    # What stands behind the head is not looked at: it may be no UTF-8. Messages name lines.
    before = b"\n" * raw.count(b"\n", 0, max(found.start(1), 0))
    data = parse_yaml(decode(before + (found[1] or b""), readme))
    if not isinstance(data, dict | None):
        raise InputError("expected keys and values between `---` and `---`")
    return data or {}


def _of_head(head: dict[str, Any]) -> Licence | None:
    named = [value for key, value in head.items() if normal(str(key)) in _KEYS]
    if len(named) > 1:
        raise InputError("`license` stands there in several spellings")
    found = named[0] if named and isinstance(named[0], list) else named
    words = [_text(one, "license") for one in found if one is not None]
    if not words:
        return None
    name, link = (
        None if (value := head.get(key)) is None else _text(value, key)
        for key in ("license_name", "license_link")
    )
    ids = tuple(map(licence_word, words))
    return Licence(ids, name or None, link if link and _LINK.fullmatch(link) else None)


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST:
        raise InputError(f"`{key}`: expected a text of one line, found {shown(value)}")
    return value
