"""Under which licence a merge may be published, by what the models' cards say of theirs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.display.text import printable
from mergeplan.errors import InputError
from mergeplan.system.reading import Kind, read_text
from mergeplan.system.yamlfile import parse_leniently

_README = Kind(1_000_000)
_FRONT = re.compile(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|$)", re.DOTALL)
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
_NO_DERIVATIVES = re.compile(r"\b(nd|no-?deriv\w*)\b")
_NON_COMMERCIAL = re.compile(r"\b(nc|non-?commercial)\b")
# Those of the hub's list under which a work made of several may get another one.
_PERMISSIVE = (
    *("afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "ecl-2.0", "etalab-2.0", "isc"),
    *("mit", "ms-pl", "ncsa", "odc-by", "pddl", "postgresql", "unlicense", "wtfpl", "zlib"),
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
        return any(word.search(text.lower()) for text in (*self.ids, self.name or ""))

    def front_matter(self) -> dict[str, Any]:
        """The keys of a card."""
        ids: str | list[str] = self.ids[0] if len(self.ids) == 1 else list(self.ids)
        named = {"license_name": self.name, "license_link": self.link}
        return {"license": ids, **{key: value for key, value in named.items() if value}}


@dataclass(frozen=True)
class Licences:
    """The licence of a merge, and those of its models.

    Attributes:
        of_models: By their public names; `None` where a model's card says nothing.
        chosen: What the user sets.
    """

    of_models: dict[str, Licence | None]
    chosen: str | None = None

    @property
    def licence(self) -> Licence | None:
        """That of the merge: the chosen one, or that in which all models agree."""
        if self.chosen is not None:
            same = [one for one in self.of_models.values() if one and one.ids == (self.chosen,)]
            return same[0] if same else Licence((self.chosen,))
        found = set(self.of_models.values())
        only = found.pop() if len(found) == 1 else None
        return only if only is not None and only.is_known else None

    def check(self) -> Licence:
        """The licence under which the merge can be published.

        Raises:
            InputError: A model's licence forbids it, or none is set.
        """
        for model, one in self.of_models.items():
            if one and one.says(_NO_DERIVATIVES):
                raise InputError(
                    f"the licence of `{model}`, {one}, forbids to publish what is made of it, as a"
                    " merge is",
                    "leave `--push-to-hub` out, or leave that model out of the merge",
                )
        if (licence := self.licence) is None:
            said = ", ".join(f"`{name}`: {one or 'none'}" for name, one in self.of_models.items())
            raise InputError(
                f"no licence for the merge: its models' cards do not all say the same ({said})",
                "say which one it has: `--license ID`, such as `--license apache-2.0`",
            )
        if self.chosen is not None:
            for model, one in self.of_models.items():
                if one and one != licence and (why := _why_not(one, self.chosen)):
                    raise InputError(
                        f"`--license {self.chosen}`: `{model}` {why} ({one})",
                        f"give one that keeps its terms, such as `--license {one.ids[0]}`; whoever"
                        f" holds the rights of `{model}` can say so in its README.md",
                    )
        return licence


def _why_not(one: Licence, chosen: str) -> str | None:
    """Why a model's licence does not go with that of a merge of it."""
    if chosen == "other":
        return None
    if one.says(_NON_COMMERCIAL) and not _NON_COMMERCIAL.search(chosen):
        return "may not be used commercially"
    if chosen in _PERMISSIVE and not {*one.ids} <= {*_PERMISSIVE}:
        return "has terms of its own, which a merge of it must keep"
    return None


def check_id(licence: str) -> None:
    """Check that a licence is one by its form.

    Raises:
        InputError: It is none.
    """
    if not _ID.fullmatch(licence):
        raise InputError(
            f"`license`: expected the hub's word for one, such as `apache-2.0`, found `{licence}`"
        )


def read_licences(models: Sequence[tuple[str, Path]], chosen: str | None) -> Licences:
    """Look into the cards of models.

    Args:
        models: Public name and folder of each.
        chosen: What the user sets.
    """
    return Licences({name: licence_of(folder) for name, folder in models}, chosen)


def licence_of(folder: Path) -> Licence | None:
    """What the head of a model's README.md says; a card may be anybody's, and hold anything."""
    try:
        text = read_text(folder / "README.md", _README)
    except (InputError, OSError):
        return None
    front = _FRONT.match(text)
    data = parse_leniently(front[1]) if front else None
    if not isinstance(data, dict):
        return None
    found = data.get("license")
    found = found if isinstance(found, list) else [found]
    ids = [str(one).lower() for one in found if one is not None]
    if not ids or not all(map(_ID.fullmatch, ids)):
        return None
    name, link = (
        value if isinstance(value := data.get(key), str) and value.isprintable() else None
        for key in ("license_name", "license_link")
    )
    return Licence(tuple(ids), name, link)
