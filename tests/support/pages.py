"""The examples of a page of the documentation, run and held against what the page says.

Of a page's fenced blocks
- `sh` runs in bash, with `mergeplan` on its path, `python` in Python, both in the page's folder;
- `text` right behind one of them is what it prints, on both streams, but for `...`, a line that
  stands for any lines;
- `console` is both in one: commands behind `$ `, and what each prints;
- of any other kind but `sh`, one whose first line is `# NAME` is that file, Python too;
- behind a comment `<!-- not run: WHY -->` nothing is done with it.

No line may fail, but the last one of a block where a comment says `exit code N`.
"""

import difflib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What differs from run to run and between machines.
MASKS = (
    (re.compile(r"\b\d+(\.\d+)?( ?)(ms|s|min)\b"), "#2s"),
    (re.compile(r"\b\d+(\.\d+)? [kMG]?B/s"), "# MB/s"),
    (re.compile(r"\b\d+(\.\d+)? % of it merging"), "# % of it merging"),
)
# float32 sums of another processor may differ in the last digit that is printed.
_DECIMAL = re.compile(r"\d+\.\d{3,}")
_BLOCK = re.compile(
    r"^(?P<skip><!-- not run: .*? -->\n+)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Step:
    """One thing to run, and what it should print, which stands at `[start, end)` of the page."""

    line: int
    program: str
    source: str
    expected: str | None = None
    span: tuple[int, int] | None = None
    code: int = 0


def steps_of(page: str) -> Iterator[Step]:
    """The steps of a page, in order."""
    step: Step | None = None
    for found in _BLOCK.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        kind, text = found["kind"], found["text"]
        if kind == "text" and step is not None and not found["skip"]:
            step.expected, step.span = text, found.span("text")
        if step is not None:
            yield step
            step = None
        if found["skip"] or kind == "text":
            continue
        elif kind == "console":
            yield from _console(text, line, found.start("text"))
        elif kind != "sh" and (named := re.match(r"# ([\w./-]+\.\w+)\n", text)):
            yield Step(line, named[1], text)
        elif kind in ("sh", "python"):
            code = re.search(r"#.* exit code (\d+)", text)
            program = "bash" if kind == "sh" else "python"
            step = Step(line, program, text, code=int(code[1]) if code else 0)
    if step is not None:
        yield step


def _console(text: str, line: int, start: int) -> Iterator[Step]:
    for found in re.finditer(r"^\$ (.*\n)((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        code = re.search(r"#.* exit code (\d+)", found[1])
        at = line + 1 + text.count("\n", 0, found.start())
        span = (start + found.start(2), start + found.end(2))
        yield Step(at, "bash", found[1], found[2], span, int(code[1]) if code else 0)


def run_step(step: Step, folder: Path, programs: Path) -> tuple[int, str]:
    """Run it in `folder`; its exit code, and what it printed."""
    if step.program not in ("bash", "python"):
        (folder / step.program).parent.mkdir(parents=True, exist_ok=True)
        (folder / step.program).write_text(step.source, "utf-8")
        return 0, ""
    source = step.source
    if step.code:
        *before, last = source.rstrip().split("\n")
        only_last = "trap '[ -n \"${last-}\" ] || exit 125' ERR"
        source = "\n".join([only_last, *before, "last=1", last])
    command = ["bash", "-euo", "pipefail", "-c", source]
    if step.program == "python":
        (folder / ".block.py").write_text(step.source, "utf-8")
        command = [str(programs / "python"), ".block.py"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "COLUMNS": "100",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
    )
    return done.returncode, done.stdout


def is_as_told(expected: str, printed: str) -> bool:
    """Whether a block says what was printed."""
    expected, printed = _masked(expected), _masked(printed)
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else _line_pattern(line)
        for line in expected.splitlines()
    )
    found = re.fullmatch(pattern, printed)
    return found is not None and all(
        abs(_last_place(told) - _last_place(seen)) <= 1
        for told, seen in zip(_DECIMAL.findall(expected), found.groups(), strict=True)
    )


def _line_pattern(line: str) -> str:
    """This line, with a group for each number that may differ in its last digit."""
    between = map(re.escape, _DECIMAL.split(line))
    places = [len(number.split(".")[1]) for number in _DECIMAL.findall(line)]
    groups = [*(rf"(\d+\.\d{{{n}}})" for n in places), ""]
    return "".join(map("".join, zip(between, groups, strict=True))) + r"\n"


def _last_place(number: str) -> int:
    return int(number.replace(".", ""))


def _masked(text: str) -> str:
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def renewed(page: str, folder: Path, programs: Path) -> tuple[str, list[str]]:
    """The page with what its steps print now, and what is wrong with it as it is.

    A block that is still right stays, with its `...` and the times of the day that it was made.
    """
    new, wrong, done = [], [], 0
    for step in steps_of(page):
        code, printed = run_step(step, folder, programs)
        if code != step.code:
            wrong.append(f"line {step.line}: exit code {code}, not {step.code}:\n{printed}")
        if step.expected is None or step.span is None or is_as_told(step.expected, printed):
            continue
        lines = difflib.unified_diff(
            *(text.splitlines(keepends=True) for text in (step.expected, printed)),
            *("the page", "now"),
            n=1,
        )
        wrong.append(f"line {step.line}:\n{''.join(lines)}")
        new += [page[done : step.span[0]], printed]
        done = step.span[1]
    return "".join([*new, page[done:]]), wrong
