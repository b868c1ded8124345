"""Where in a YAML text a fault is: its line, and a caret below what is at fault."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import yaml

from mergeplan.errors import InputError
from mergeplan.system.yamlfile import compose, places_in

_NAMED = re.compile(r"`([^`]+)`")
_LINE = re.compile(r"\bline (\d+)(?:, column (\d+))?")
_TWICE = re.compile(r"key `([^`]+)` stands twice \(line (\d+), column (\d+)\)")
# Faults of a key itself, and not of what it says.
_OF_KEYS = re.compile(r"unknown (key|option)|does nothing|exclude each other|expected one of `")
# Under which a config names models.
_OF_MODELS = ("model", "base_model", "source", "tokenizer_source")
_WIDTH, _BEFORE = 100, 60


def with_excerpts(faults: Sequence[InputError], text: str, named: str = "") -> list[InputError]:
    """The faults of a text, each with the line that it is about where one can be found.

    Args:
        faults: Each names its key first, as `models[0].parameters.weight`, or a value, or a line.
        text: YAML, or what is none.
        named: How the file is named, before what each says.
    """
    found = []
    for fault in faults:
        found.append(type(fault)(f"{named}{fault.message.removeprefix(named)}", fault.hint))
        found[-1].about = fault.about
    mark_lines(found, text, named)
    return found


def mark_lines(faults: Sequence[InputError], text: str, named: str = "") -> None:
    """Give each of some faults the line that it is about, as `with_excerpts` does."""
    if not faults:
        return
    places, lines = _Places(text), text.split("\n")
    for fault in faults:
        place = places.of(fault.about, fault.message.removeprefix(named))
        if excerpt := _drawn(lines, *place):
            fault.excerpt, fault.line = excerpt, place[0] + 1


class _Places:
    """Where in a text its keys and values stand.

    All are sorted once: a vocabulary that was given for a config has 50,000 unknown keys.
    """

    def __init__(self, text: str) -> None:
        self._place = places_in(text)
        self._root = compose(text)
        self._keys: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}
        self._values: dict[str, list[tuple[str, yaml.Node]]] = {}
        for key, value in _values(self._root) if self._root is not None else ():
            self._values.setdefault(str(value.value), []).append((key, value))

    def of(self, about: str, message: str) -> tuple[int, int | None, int | None]:
        """Line and columns of what a fault is about; line -1 where it cannot be found."""
        named = _NAMED.search(message)
        lines = _LINE.findall(message)
        if twice := _TWICE.search(message):
            line, column = int(twice[2]) - 1, int(twice[3]) - 1
            return line, column, column + len(twice[1])
        node = None
        if about and about in self._values:
            # A model may be called as a method.
            node = min(self._values[about], key=lambda pair: pair[0] not in _OF_MODELS)[1]
        if node is None and named is not None:
            node = self._node_at(named[1], of_key=bool(_OF_KEYS.search(message)))
        if node is not None:
            (line, column), (last, end) = map(self._place, (node.start_mark, node.end_mark))
            return line, column, end if last == line else None
        if lines:
            line, column = lines[-1]
            return int(line) - 1, int(column) - 1 if column else None, None
        return -1, None, None

    def _node_at(self, path: str, *, of_key: bool) -> yaml.Node | None:
        """What a path such as `models[0].weight` leads to, as far as it leads; or, where it begins
        with no key, the value that is so named (`merge_method: ties` of `ties`)."""
        node, key = self._root, None
        while path:
            if isinstance(node, yaml.MappingNode):
                path = path.removeprefix(".")
                known = [pair for start in _starts(path) if (pair := self._pairs(node).get(start))]
                if not known:
                    break
                key, node = known[-1]
                path = path[len(key.value) :]
            elif isinstance(node, yaml.SequenceNode) and (match := re.match(r"\[(\d+)\]", path)):
                if int(match[1]) >= len(node.value):
                    break
                key = node = node.value[int(match[1])]
                path = path[match.end() :]
            else:
                break
        if key is None:
            return next((value for _, value in self._values.get(path, ())), None)
        return node if isinstance(node, yaml.ScalarNode) and node.value and not of_key else key

    def _pairs(self, node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if id(node) not in self._keys:
            # Of a key that stands twice the last, which counts.
            self._keys[id(node)] = {
                key.value: (key, value)
                for key, value in node.value
                if isinstance(key, yaml.ScalarNode)
            }
        return self._keys[id(node)]


def _values(node: yaml.Node, key: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """All texts in it that are no keys, each with its key."""
    if isinstance(node, yaml.ScalarNode):
        yield key, node
        return
    for entry in node.value:
        if isinstance(node, yaml.MappingNode):
            yield from _values(entry[1], str(entry[0].value))
        else:
            yield from _values(entry, key)


def _starts(path: str) -> list[str]:
    """The keys that a path may begin with, the shortest first: a key may hold a point itself."""
    return [*(path[: mark.start()] for mark in re.finditer(r"[.\[]", path)), path]


def _drawn(lines: list[str], number: int, column: int | None, end: int | None) -> str:
    if not 0 <= number < len(lines):
        return ""
    line = lines[number]
    column = len(line) - len(line.lstrip()) if column is None else column
    end = max(len(line.rstrip()) if end is None else end, column + 1)
    cut = max(column - _BEFORE, 0) if len(line) > _WIDTH else 0
    shown = "".join(c if c.isprintable() else " " for c in line[cut : cut + _WIDTH])
    below, at_fault = shown[: column - cut], shown[column - cut : end - cut]
    head = f"{number + 1} | "
    carets = "^" * min(_wide(at_fault) or 1, _WIDTH - (column - cut))
    return f"  {head}{shown}\n  {' ' * (len(head) - 2)}| {' ' * _wide(below)}{carets}"


def _wide(text: str) -> int:
    """Columns that a terminal gives it."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
