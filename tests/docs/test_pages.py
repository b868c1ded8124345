"""The pages hold together: links lead somewhere on GitHub too, and nothing is left out of them."""

import re
from pathlib import Path

import click
import pytest

from mergeplan.calibration import run_folder
from mergeplan.cli import COMMANDS, group
from mergeplan.measurements.columns import COLUMNS
from tests.support.settings import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def command(name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None
    return found


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in _LINK.findall(_CODE.sub("", page.read_text("utf-8"))):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_is_empty_or_a_mere_pointer_to_another(page):
    text = re.sub(r"^#.*$|\[[^]]*\]\([^)]*\)", "", page.read_text("utf-8"), flags=re.M)
    assert len(text.split()) > 15


def test_the_site_leaves_no_page_out():
    assert "exclude" not in (DOCS / "conf.py").read_text("utf-8")


def test_the_page_of_commands_has_every_command():
    text = (DOCS / "commands.md").read_text("utf-8")
    assert set(COMMANDS) == set(re.findall(r"^mergeplan ([\w-]+)", text, re.M))


def test_every_column_of_a_table_of_measurements_is_on_its_page():
    text = (DOCS / "formats.md").read_text("utf-8")
    section = text.partition("## `measurements.csv`")[2].partition("\n## ")[0]
    assert {column.name for column in COLUMNS} <= set(re.findall(r"`(\w+)`", section))


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_tables_of_times_and_memory_are_among_the_evidence(page):
    figure = r"^\|.*\| *\**\d[\d.,]* (?:m?s|[kMG]B|×)\W.*$"
    cells = re.findall(figure, page.read_text("utf-8"), re.M)
    assert not cells


def test_every_schema_is_linked():
    text = (DOCS / "json.md").read_text("utf-8")
    assert {path.name for path in (DOCS / "schemas").iterdir()} == set(
        re.findall(r"\]\(schemas/([\w.]+)\)", text)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_of_a_command_that_is_shown_exists(page):
    for block in re.findall(
        r"^```(?:sh|console|bash)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if shown := re.search(r"(?:^|\$ |/)mergeplan (\w[\w-]*)(.*)$", line.partition(" #")[0]):
                name, rest = shown.groups()
                assert name in COMMANDS, line
                if name != "mergekit":  # whose options are mergekit's
                    known = {
                        flag for o in command(name).params for flag in (*o.opts, *o.secondary_opts)
                    }
                    assert set(re.findall(r"(?<= )--?[a-zA-Z][\w-]*", rest)) <= known | {
                        "--help"
                    }, line


def test_every_file_of_a_run_is_on_its_page():
    text = (DOCS / "formats.md").read_text("utf-8")
    section = text.partition("## A run's folder")[2].partition("\n## ")[0]
    files = re.findall(r"^  ([\w.]+)  +\S", run_folder.__doc__ or "", re.M)
    assert len(files) > 9
    assert set(files) <= set(re.findall(r"`([\w.]+)`", section))
