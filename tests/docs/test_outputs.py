"""What the pages for users show is what a reader gets."""

import pytest

from tests.support.pages import is_as_told, renewed, steps_of
from tests.support.settings import ROOT
from tests.support.warm import warm_programs

PAGES = ("start", "merge", "plan")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    with warm_programs(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_its_commands_print(name, programs, tmp_path):
    page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    _, wrong = renewed(page, tmp_path, programs)
    renew = "\n\n`python -m tests.tools.docs_outputs` writes what they print now"
    assert not wrong, "\n".join(wrong) + renew


PAGE = """
```yaml
# a/file.yml
x: 1
```
<!-- run: echo hidden > b -->
```sh
cat a/file.yml b; exit 3  # with exit code 3
```
```text
# a/file.yml
...
hidden
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
    assert programs_of == ["a/file.yml", "bash", "bash", "python", "bash", "bash"]
    new, wrong = renewed(PAGE, tmp_path, programs)
    assert wrong == ["line 30: it says\ntoo\nand prints\ntwo\n"]
    assert new == PAGE.replace("too\n", "two\n")
    _, wrong = renewed("```sh\nfalse\n```\n", tmp_path, programs)
    assert wrong == ["line 1: exit code 1, not 0:\n"]


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
