"""Each message of the troubleshooting page is made by the fault that the page ascribes it to."""

import re
import shlex
from dataclasses import dataclass
from importlib import import_module

import pytest

from mergeplan.cli import COMMANDS, group
from tests.support.settings import ROOT
from tests.support.troubles import PRODUCERS, Bench

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
_SEEN_BEFORE = re.compile(r"(error|warning|problem): ((pool )?`(c|pool)\.yml`: )?")
# In a heading: a name, a number, whatever.
_PLACEHOLDERS = {r"`[A-Z]+`": "`[^`]+`", r"\bN\b": r"[\d.,]+", "…": ".*"}


@dataclass(frozen=True)
class Entry:
    """A message of the page, and what it says of it."""

    message: str
    body: str

    @property
    def exit_code(self) -> int:
        named = re.search(r"[Ee]xit code (\d+)", self.body)
        return int(named[1]) if named else 1

    def is_said_in(self, line: str) -> bool:
        pattern = re.escape(self.message)
        for placeholder, stands_for in _PLACEHOLDERS.items():
            pattern = re.sub(placeholder, lambda _, by=stands_for: by, pattern)
        return re.fullmatch(pattern, _SEEN_BEFORE.sub("", line, count=1)) is not None


_FOUND = re.findall(r"^### ([^\n]*)\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
ENTRIES = [Entry(head, body) for head, body in _FOUND]


def test_every_message_has_a_producer_and_every_producer_a_message():
    assert [entry.message for entry in ENTRIES] == list(dict.fromkeys(e.message for e in ENTRIES))
    assert {entry.message for entry in ENTRIES} == PRODUCERS.keys()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.message)
def test_the_message_is_what_the_fault_gives(entry, tmp_path, monkeypatch):
    assert entry.body.strip()
    done = PRODUCERS[entry.message](Bench.made(tmp_path, monkeypatch))
    lines = (done.stderr + done.stdout).splitlines()
    assert any(map(entry.is_said_in, lines)), done.stderr + done.stdout
    assert done.returncode == entry.exit_code, done.stderr
    assert "Traceback" not in done.stderr


def test_what_it_advises_can_be_run():
    """Each command in the page is there, and so are its options."""
    advised = re.findall(r"`(mergeplan [^`]+)`", PAGE)
    assert len(advised) > 5
    for words in map(shlex.split, advised):
        assert words[1] in COMMANDS, words
        known = import_module(f"mergeplan.cli.{words[1]}").command.params
        options = {name for option in known for name in (*option.opts, *option.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
        assert used <= options | {"--help"}, words


def test_its_exit_codes_are_those_of_the_command():
    listed = [int(code) for code in re.findall(r"^\| (\d+) ", PAGE, re.M)]
    assert listed == [int(code) for code in re.findall(r"\b\d+\b", group.help)]
