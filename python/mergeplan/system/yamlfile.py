"""YAML, read strictly: one value for each key, no tags but the plain ones, and no aliases that grow
without end."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from mergeplan.display.text import cut, shown
from mergeplan.errors import InputError, raise_all
from mergeplan.system.jsontext import DEEPEST, LONGEST_NUMBER, check_text
from mergeplan.system.reading import Kind, read_text

# Values, each as often as aliases repeat it.
MOST_VALUES = 100_000
_TAG = "tag:yaml.org,2002:"
_COLLECTIONS: dict[type, str] = {yaml.MappingNode: f"{_TAG}map", yaml.SequenceNode: f"{_TAG}seq"}
_WORDS = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "nothing",
    "str": "a text",
    "timestamp": "a date",
}
_LONGEST_FLOAT = 100
# What ends a line to YAML, and to few editors.
_BREAKS = re.compile("[\x85\u2028\u2029]")
_NOTHING = ("", "~", "null", "Null", "NULL")

# libyaml's parser where PyYAML was built with it: ten times as fast.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Loader):  # type: ignore[misc]
    """Says in our words, and with its line, what cannot be a value.

    Attributes:
        twice: Keys that stand twice; of those the last one counts, as to a plain loader.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.twice: dict[tuple[int, int], InputError] = {}
        super().__init__(text)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        word = node.tag.removeprefix(_TAG)
        if not isinstance(node, yaml.ScalarNode):
            if node.tag != _COLLECTIONS[type(node)]:
                raise self._fault(node, f"a list or a mapping, found the tag {shown(word)}")
            return super().construct_object(node, deep)
        if word == "binary":
            raise self._fault(node, "a text, found the tag `binary`")
        longest = {"int": LONGEST_NUMBER, "float": _LONGEST_FLOAT}.get(word)
        if longest is not None and len(node.value) > longest:
            raise self._fault(node, f"a number that fits, found {shown(node.value)}")
        try:
            found = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:
            # PyYAML takes what has a tag for what the tag says.
            expected = _WORDS.get(word, shown(word))
            raise self._fault(node, f"{expected}, found {shown(node.value)}") from error
        if isinstance(found, str):
            try:
                check_text(found)
            except ValueError as error:
                raise InputError(f"{_line(self.text, node)}: {error}") from error
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == f"{_TAG}merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{_line(self.text, key_node)}: a key must be a word")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line, column = places_in(self.text)(key_node.start_mark)
                said = f"key {shown(key)} stands twice (line {line + 1}, column {column + 1})"
                self.twice[line, column] = InputError(said)
            seen.add(key)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def _fault(self, node: yaml.Node, what: str) -> InputError:
        return InputError(f"{_line(self.text, node)}: expected {what}")


def _line(text: str, node: yaml.Node | yaml.Event) -> str:
    return f"line {places_in(text)(node.start_mark)[0] + 1}"


def places_in(text: str) -> Callable[[Any], tuple[int, int]]:
    """What tells line and column of a mark as editors count them, from 0.

    >>> node = yaml.compose("a: 1 # one\u2028b: 2\\nc: 3")
    >>> places_in("a: 1 # one\u2028b: 2\\nc: 3")(node.value[1][0].start_mark)
    (0, 11)
    """
    if not _BREAKS.search(text):
        return lambda mark: (mark.line, mark.column) if mark else (0, 0)
    theirs = [0, *(match.end() for match in re.finditer(f"\n|{_BREAKS.pattern}", text))]
    ours = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(mark: Any) -> tuple[int, int]:
        index = theirs[min(mark.line, len(theirs) - 1)] + mark.column if mark else 0
        line = bisect_right(ours, index) - 1
        return line, index - ours[line]

    return place


def parse_yaml(text: str) -> Any:
    """What YAML text says.

    Raises:
        InputError: It is no YAML, a key stands twice, or it holds what no file of ours does.
    """
    data, twice = parse_yet(text)
    if twice:
        raise_all(twice)
    return data


def parse_yet(text: str) -> tuple[Any, list[InputError]]:
    """What YAML text says, and which of its keys stand twice: of those the last ones count.

    Raises:
        InputError: It is no YAML, or it holds what no file of ours does.
    """
    try:
        for _ in _documents(text):
            pass
        loader = _StrictLoader(text)
        try:
            return loader.get_single_data(), [loader.twice[key] for key in sorted(loader.twice)]
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _invalid(error, text) from error


def _invalid(error: Exception, text: str) -> InputError:
    """What is no YAML, with its place and without the parser's name for the text."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return InputError(f"invalid YAML: {cut(' '.join(str(error).split()), 300)}")
    line, column = places_in(text)(error.problem_mark)
    where = f"invalid YAML: line {line + 1}, column {column + 1}"
    if "".join(text.split("\n")[line : line + 1])[column : column + 1] == "\t":
        return InputError(f"{where}: found a tab", "indent by spaces: YAML takes no tabs there")
    during = f", {error.context}" if error.context else ""
    return InputError(f"{where}: {cut(error.problem, 200)}{during}")


def compose(text: str) -> yaml.Node | None:
    """Where in YAML text its values stand; `None` of what no loader takes, or of nothing."""
    try:
        for _ in _documents(text):
            pass
        return yaml.compose(text, _Loader)
    except Exception:  # as `parse_leniently`
        return None


def parse_leniently(text: str) -> Any:
    """What YAML text says to a plain loader: of a key that stands twice the last; `None` where it
    says nothing, or what no loader takes.
    """
    try:
        for _ in _documents(text):
            pass
        return yaml.load(text, _Loader)
    except Exception:  # whatever PyYAML raises of tags that do not fit
        return None


def count_documents(text: str) -> int:
    """How many YAML documents a text holds that say anything; 1 for what is no YAML."""
    if "---" not in text:
        return 1
    try:
        return sum(_documents(text))
    except (yaml.YAMLError, ValueError):
        return 1


def _documents(text: str) -> Iterator[bool]:
    """Whether each document says anything; what is nested in it is counted, and made nowhere.

    Raises:
        InputError: It is nested too deeply, or its aliases make it too large.
        YAMLError: It is no YAML.
    """
    # What is open, outermost first: anchor, and values until now. A document is open to the end.
    open_: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.DocumentStartEvent):
            open_, sizes, says = [(None, 0)], {}, True
        elif isinstance(event, yaml.DocumentEndEvent):
            yield says
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(open_) > DEEPEST:
                raise InputError(f"invalid YAML: nested too deeply, more than {DEEPEST} levels")
            open_.append((event.anchor, 1))
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            size, anchor = 1, getattr(event, "anchor", None)
            if isinstance(event, yaml.CollectionEndEvent):
                anchor, size = open_.pop()
            elif isinstance(event, yaml.AliasEvent):
                anchor, size = None, _size_of(text, event, open_, sizes)
            elif len(open_) == 1 and isinstance(event, yaml.ScalarEvent):
                says = not event.implicit[0] or event.value not in _NOTHING
            if anchor is not None:
                sizes[anchor] = size
            outer, before = open_.pop()
            if before + size > MOST_VALUES:
                raise InputError(f"invalid YAML: expected at most {MOST_VALUES} values, found more")
            open_.append((outer, before + size))


def _size_of(
    text: str, alias: yaml.AliasEvent, open_: list[tuple[str | None, int]], sizes: dict[str, int]
) -> int:
    name = alias.anchor
    line = _line(text, alias)
    if any(anchor == name for anchor, _ in open_):
        raise InputError(f"{line}: the anchor {shown(name)} contains itself")
    if name not in sizes:
        raise InputError(f"{line}: there is no anchor {shown(name)}")
    return sizes[name]


def read_yaml(path: Path, kind: Kind, *, given: bool = False) -> Any:
    """The contents of a YAML file.

    Args:
        given: Whether the user names it, so that it may be a pipe.

    Raises:
        MissingInputError: There is no such file.
        InputError: It cannot be read, or is no YAML.
    """
    return yaml_of(read_text(path, kind, given=given), path, kind)


def yaml_of(text: str, path: Path, kind: Kind) -> Any:
    """What the text of a file says.

    Raises:
        InputError: It is no YAML.
    """
    try:
        return parse_yaml(text)
    except InputError as error:
        named = f"cannot read {kind.word} `{path}`"
        raise_all([InputError(f"{named}: {one.message}", one.hint) for one in error.faults])
