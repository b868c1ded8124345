"""Whether the models of a merge mean the same tokens by the rows that are merged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.vocabulary import (
    TokenFiles,
    files_without_list,
    read_ids,
    token_files,
)
from mergeplan.config.config import MergeConfig
from mergeplan.display.text import printable
from mergeplan.errors import InputError, raise_all

_HINT = (
    "`tokenizer_source: base` or `union` in the config gives each token its own row;"
    " `--allow-vocabulary-mismatch` merges the rows as they stand"
)
# Names of rows that nothing was trained on, for later use: Llama 3.1 numbers them anew.
_RESERVED = re.compile(
    r"[<\[]\|?(reserved(_special)?(_token)?|unused|extra|placeholder)_?\d+\|?[>\]]"
)
# So many tokens are named.
_FIRST = 5

Folders = Mapping[str, Path]
Moved = tuple[str, int, int]


@dataclass
class Mismatch:
    """What is found about the vocabularies of some models.

    Attributes:
        faults: By the model that differs: one token has two ids, or hardly any token is common.
        warnings: Tokens that not all have, other tokens at one id, what could not be compared.
    """

    faults: list[tuple[str, InputError]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def allowed(self) -> list[str]:
        """Everything as warnings."""
        return [*(f"{error}: merged row by row" for _, error in self.faults), *self.warnings]

    def check(self, *, allow: bool) -> list[str]:
        """The warnings.

        Args:
            allow: Whether rows are merged all the same.

        Raises:
            InputError: All faults, unless they are allowed.
        """
        if self.faults and not allow:
            for model, fault in self.faults:
                fault.about = model
            raise_all([fault for _, fault in self.faults])
        return self.allowed()


def compare_vocabularies(
    config: MergeConfig, checkpoints: Sequence[Checkpoint], donor: str
) -> Mismatch:
    """Compare the tokens of a config's models.

    With a tokenizer option each token gets its own row, whatever its number in each model.

    Args:
        checkpoints: The models, by their names in the config.
        donor: Name of the one whose tokenizer the output gets.
    """
    if config.tokenizer_source is not None:
        return Mismatch()
    unused = set()
    if config.is_sliced:  # the rows of tokens are those of the first slice and the last
        ends = [piece for m in config.modules for piece in (m.slices[0], m.slices[-1])]
        used = {donor, *(source.path for piece in ends for source in piece.sources)}
        unused = {model.path for model in config.models} - used
    having_rows = [c for c in checkpoints if c.name not in unused]
    return compare_folders(folders_of(having_rows, donor))


def folders_of(checkpoints: Sequence[Checkpoint], donor: str) -> dict[str, Path]:
    """Where models may have a tokenizer: their folders, and those of adapters on them.

    Args:
        donor: Name of the model whose folder comes first.
    """
    found: dict[Path, str] = {}
    for checkpoint in sorted(checkpoints, key=lambda checkpoint: checkpoint.name != donor):
        found.setdefault(checkpoint.path, checkpoint.name)
        for source in checkpoint.sources:
            found.setdefault(source.path, source.name)
    return {name: path for path, name in found.items()}


def compare_folders(folders: Folders) -> Mismatch:
    """Compare tokenizers; folders without any are passed over, in silence if they have no file of
    one.

    Args:
        folders: By the models' names; the output gets the first one's tokenizer.
    """
    having = {name: files for name, path in folders.items() if (files := token_files(path))}
    found = Mismatch()
    first = next(iter(having), "")
    for name, path in folders.items() if having else ():
        if unread := files_without_list(path):
            found.warnings.append(
                f"the vocabularies of `{first}` and `{name}` could not be compared: `{name}` has"
                f" `{unread[0]}`, and no file that is known to list its tokens"
            )
    # Tokens that the first model lacks: who has them, and where.
    elsewhere: dict[str, tuple[str, int]] = {}
    for name in list(having)[1:]:
        try:
            difference = _difference(having[first], having[name])
        except InputError as error:
            found.warnings.append(
                f"the vocabularies of `{first}` and `{name}` could not be compared: {error}"
            )
            continue
        moved = {first: list(difference.moved)}
        for token, number in difference.more:
            model, before = elsewhere.setdefault(token, (name, number))
            if before != number:
                moved.setdefault(model, []).append((token, before, number))
        for model, tokens in moved.items():
            count = difference.n_moved if model == first else len(tokens)
            tokens.sort(key=_reserved_last)
            fault = _two_ids(model, name, tokens[:_FIRST], count)
            if _are_reserved(tokens):
                found.warnings.append(f"{fault.message}: reserved names alone, merged row by row")
            elif tokens:
                found.faults.append((name, fault))
        if difference.are_strangers:
            found.faults.append((name, _strangers(first, name, difference)))
        elif not difference.moved or _are_reserved(difference.moved):
            found.warnings += _warnings(first, name, difference)
    _ids_of_first.cache_clear()  # a large vocabulary takes 30 MB
    return found


@dataclass(frozen=True)
class _Difference:
    """How one vocabulary differs from another.

    Attributes:
        moved: The first tokens with two ids, and both; reserved names come last.
        renamed: The first id that stands for two tokens, and both.
        more: Tokens that only the other one has, at ids that the first has no token for.
        lacking: The first of the tokens that only the first one has, at ids that are no token of
            the other.
    """

    moved: tuple[Moved, ...] = ()
    n_moved: int = 0
    n_alike: int = 0
    n_smaller: int = 0
    renamed: tuple[int, str, str] | None = None
    n_renamed: int = 0
    more: tuple[tuple[str, int], ...] = ()
    lacking: str = ""
    n_lacking: int = 0

    @property
    def are_strangers(self) -> bool:
        """Whether hardly a token is common; none is, where no token has two ids."""
        return not self.moved and 2 * self.n_alike < self.n_smaller


# Many are compared with one: it is read once.
_ids_of_first = lru_cache(maxsize=1)(read_ids)


@lru_cache(maxsize=1024)
def _difference(first: TokenFiles, other: TokenFiles) -> _Difference:
    """Compare two vocabularies by a file that both have, or else by what each prefers.

    Raises:
        InputError: A file cannot be read, or files of two kinds do not agree.
    """
    ours, theirs = dict(first.lists), dict(other.lists)
    common = next((name for name in ours if name in theirs), None)
    if common and first.added == other.added and ours[common] == theirs[common]:
        return _Difference()
    one, two = common or next(iter(ours)), common or next(iter(theirs))
    own, their = _ids_of_first(first, one), read_ids(other, two)
    if own == their:
        return _Difference()
    moved = [(t, own[t], i) for t, i in their.items() if own.get(t, i) != i]
    moved.sort(key=_reserved_last)
    if moved and not common:
        # Some loaders shift the numbers of one kind: nothing is known for sure.
        raise InputError(f"one is in `{one}`, the other in `{two}`, and their numbers differ")
    tokens = {number: token for token, number in own.items()}
    more = sorted((their[token], token) for token in their.keys() - own.keys())
    renamed = [(number, tokens[number], token) for number, token in more if number in tokens]
    named = set(their.values())
    lacking = sorted((own[t], t) for t in own.keys() - their.keys() if own[t] not in named)
    return _Difference(
        moved=tuple(moved[:_FIRST]),
        n_moved=len(moved),
        n_alike=len(their) - len(moved) - len(more),
        n_smaller=min(len(own), len(their)),
        renamed=renamed[0] if renamed else None,
        n_renamed=len(renamed),
        more=tuple((t, i) for i, t in more if i not in tokens),
        lacking=lacking[0][1] if lacking else "",
        n_lacking=len(lacking),
    )


def _reserved_last(moved: Moved) -> tuple[bool, int]:
    token, number, _ = moved
    return _RESERVED.fullmatch(token) is not None, number


def _are_reserved(moved: Sequence[Moved]) -> bool:
    """Whether there are some, and the first of them, behind which reserved names come, is one."""
    return bool(moved) and _reserved_last(moved[0])[0]


def _two_ids(model: str, other: str, tokens: Sequence[Moved], count: int) -> InputError:
    each = ", ".join(f"`{printable(token)}` {own} and {id_}" for token, own, id_ in tokens)
    rest = f", and {count - len(tokens)} more" if count > len(tokens) else ""
    return InputError(
        f"the vocabularies of `{model}` and `{other}` give one token two ids: {each}{rest}", _HINT
    )


def _strangers(model: str, other: str, difference: _Difference) -> InputError:
    return InputError(
        f"the vocabularies of `{model}` and `{other}` have {difference.n_alike} of"
        f" {difference.n_smaller} tokens in common",
        _HINT,
    )


def _warnings(first: str, other: str, difference: _Difference) -> list[str]:
    """Tokens that the output's tokenizer, the first model's, does not have, or that mean nothing in
    the other model."""
    gets = f"the output gets the tokenizer of `{first}`"
    found = []
    if difference.renamed:
        number, own, theirs = difference.renamed
        found.append(
            f"`{other}` has other tokens than `{first}` at {difference.n_renamed} ids, the first"
            f" {number}, which is `{printable(theirs)}` and not `{printable(own)}`: {gets}"
        )
    if difference.more:
        found.append(
            f"`{other}` has {len(difference.more)} tokens that `{first}` lacks, the first"
            f" `{printable(difference.more[0][0])}`: {gets}, without them"
        )
    if difference.n_lacking:
        found.append(
            f"`{other}` lacks {difference.n_lacking} tokens of `{first}`, the first"
            f" `{printable(difference.lacking)}`: their rows are merged with rows that mean nothing"
            f" in `{other}`"
        )
    return found
