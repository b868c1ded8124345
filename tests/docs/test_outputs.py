"""What the pages for users show is what a reader gets."""

import re
import shutil

import pytest

from tests.support.page_folders import prepare
from tests.support.pages import is_as_told, renewed, steps_of
from tests.support.settings import ROOT
from tests.support.warm import warm_programs

PAGES = sorted(
    page.relative_to(ROOT).as_posix() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)
# The others begin where the first one ends.
FIRST = "docs/start.md"
OTHERS = [
    page for page in PAGES if page != FIRST and any(steps_of((ROOT / page).read_text("utf-8")))
]
_KINDS = {"sh", "console", "python", "text", "yaml", "{eval-rst}", "{toctree}"}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    with warm_programs(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture(scope="module")
def after_first(programs, tmp_path_factory):
    """The first page's folder when all of it was run, and what was wrong with the page."""
    folder = tmp_path_factory.mktemp("first")
    return folder, wrong_with(FIRST, programs, folder)


def wrong_with(name, programs, folder):
    _, wrong = renewed((ROOT / name).read_text("utf-8"), folder, programs)
    renew = "\n\n`python -m tests.tools.docs_outputs` writes what they print now"
    return "\n".join(wrong) + renew if wrong else ""


def test_the_first_page_shows_what_its_commands_print(after_first):
    assert not after_first[1], after_first[1]


@pytest.mark.parametrize("name", OTHERS)
def test_a_page_shows_what_its_commands_print(name, programs, after_first, tmp_path):
    shutil.copytree(after_first[0], tmp_path, dirs_exist_ok=True)
    prepare(name, tmp_path)
    wrong = wrong_with(name, programs, tmp_path)
    assert not wrong, wrong


@pytest.mark.parametrize("name", PAGES)
def test_every_example_is_run_or_says_why_not(name):
    text = (ROOT / name).read_text("utf-8")
    fences = re.findall(r"^ *(?:```|~~~)(.*)$", text, re.M)
    assert set(fences[::2]) <= _KINDS
    assert not any(fences[1::2])
    marks = re.findall(r"^<!-- not run: .*\w.* -->\n```\w+$", text, re.M)
    assert len(marks) == len(re.findall(r"^ *<!-- not run:", text, re.M))


PAGE = """
```yaml
# a/file.yml
x: 1
```
```sh
cat a/file.yml; echo end; exit 3  # with exit code 3
```
```text
# a/file.yml
...
end
```
<!-- not run: no network -->
```sh
false
```
```python
print(6 * 7)
```
Words.
```text
42
```
```console
$ echo 1.2346 && echo 3 s
1.2345
7 s
$ echo two
too
```
"""


def test_blocks_are_run_and_compared(programs, tmp_path):
    steps = list(steps_of(PAGE))
    programs_of = [step.program for step in steps]
    assert programs_of == ["a/file.yml", "bash", "python", "bash", "bash"]
    new, wrong = renewed(PAGE, tmp_path, programs)
    assert wrong == ["line 29:\n--- the page\n+++ now\n@@ -1 +1 @@\n-too\n+two\n"]
    assert new == PAGE.replace("too\n", "two\n")
    _, wrong = renewed("```sh\nfalse\n```\n", tmp_path, programs)
    assert wrong == ["line 1: exit code 1, not 0:\n"]
    _, wrong = renewed("```sh\nfalse\nfalse  # exit code 1\n```\n", tmp_path, programs)
    assert wrong == ["line 1: exit code 125, not 1:\n"]


@pytest.mark.parametrize(
    ("told", "printed", "same"),
    [
        ("1.2345\n", "1.2346\n", True),
        ("1.2345\n", "1.2347\n", False),
        ("1.23\n", "1.24\n", False),
        ("took 3.1 s, 4 MB/s\n", "took 12 s, 1.5 MB/s\n", True),
        ("took 3.1 s\n", "took 12 MB\n", False),
        ("a\n...\nc 1.0000\n", "a\nb 2.0000\nb\nc 1.0001\n", True),
        ("a\n...\n", "b\na\n", False),
    ],
)
def test_only_times_and_last_digits_may_differ(told, printed, same):
    assert is_as_told(told, printed) == same
