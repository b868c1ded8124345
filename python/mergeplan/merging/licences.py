"""Under which licence a merge may be published, by what the models' cards say of theirs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mergeplan.errors import InputError, nearest
from mergeplan.merging.licence import (
    ON_HUB,
    PERMISSIVE,
    Licence,
    Unreadable,
    licence_of,
    licence_word,
)

_NO_DERIVATIVES = re.compile(r"\b(nd|no-?deriv\w*)\b")
_NON_COMMERCIAL = re.compile(r"\b(nc|non-?commercial)\b")


@dataclass(frozen=True)
class Licences:
    """The licence of a merge, and those of its models.

    Attributes:
        of_models: By their public names; `None` where a model's card says nothing.
        chosen: What the user sets, as the hub writes it.
    """

    of_models: dict[str, Licence | Unreadable | None]
    chosen: str | None = None

    @property
    def licence(self) -> Licence | None:
        """That of the merge: the chosen one, or that in which all models agree."""
        found = dict.fromkeys(self.of_models.values())
        if self.chosen is not None:
            same = (one for one in found if isinstance(one, Licence) and one.ids == (self.chosen,))
            return next(same, Licence((self.chosen,)))
        only = next(iter(found)) if len(found) == 1 else None
        return only if isinstance(only, Licence) and only.is_known else None

    def check(self) -> Licence:
        """The licence under which the merge can be published.

        Raises:
            InputError: A model's licence forbids it or cannot be read, or none is set.
        """
        for model, one in self.of_models.items():
            if isinstance(one, Unreadable):
                raise InputError(
                    f"the licence of `{model}` cannot be read, and may forbid to publish what is"
                    f" made of it: {one.why}",
                    "mend the head of that README.md, or leave `--push-to-hub` out",
                )
            if one and one.says(_NO_DERIVATIVES):
                raise InputError(
                    f"the licence of `{model}`, {one}, forbids to publish what is made of it, as a"
                    " merge is",
                    "leave `--push-to-hub` out, or leave that model out of the merge",
                )
        if (licence := self.licence) is None:
            said = ", ".join(f"`{name}`: {one or 'none'}" for name, one in self.of_models.items())
            if not any(self.of_models.values()):
                problem = "no model's card states one"
            elif len(set(self.of_models.values())) == 1:
                problem = f"its models' cards do not say which they mean ({said})"
            else:
                problem = f"its models' cards do not all say the same ({said})"
            raise InputError(
                f"no licence for the merge: {problem}",
                "say which one it has: `--license ID`, such as `--license apache-2.0`",
            )
        for model, one in self.of_models.items() if self.chosen is not None else ():
            if isinstance(one, Licence) and one != licence and (why := _why_not(one, licence)):
                raise InputError(
                    f"`--license {licence}`: `{model}` {why} ({one})",
                    f"give one that keeps its terms, such as `--license {one.ids[0]}`; whoever"
                    f" holds the rights of `{model}` can say so in its README.md",
                )
        return licence


def _why_not(one: Licence, chosen: Licence) -> str | None:
    """Why a model's licence does not go with that of a merge of it."""
    if chosen.ids == ("other",):
        return None
    if one.says(_NON_COMMERCIAL) and not chosen.says(_NON_COMMERCIAL):
        return "may not be used commercially"
    if {*chosen.ids} <= {*PERMISSIVE} and not {*one.ids} <= {*PERMISSIVE}:
        return "has terms of its own, which a merge of it must keep"
    return None


def licence_warnings(chosen: str | None) -> list[str]:
    """What is odd about a licence that the user sets.

    Raises:
        InputError: It is none by its form.
    """
    word = chosen and licence_word(chosen)
    if not word or word in ON_HUB:
        return []
    hint = nearest(word, list(ON_HUB)) or "huggingface.co/docs/hub/repositories-licenses lists them"
    return [f"`--license {word}`: the hub may know no such licence; {hint}"]


def read_licences(models: Sequence[tuple[str, Path]], chosen: str | None) -> Licences:
    """Look into the cards of models.

    Args:
        models: Public name and folder of each.
        chosen: What the user sets.

    Raises:
        InputError: That is no licence by its form.
    """
    said = {name: licence_of(folder) for name, folder in models}
    return Licences(said, chosen and licence_word(chosen))
