"""What a shell is told at a Tab, and the scripts of docs/completion.md in the shells."""

import os
import re
import shutil
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

from mergeplan.cli import COMMANDS, group
from tests.support.commands import cli_process
from tests.support.settings import ROOT


def offered(*words: str) -> list[tuple[str, str]]:
    """Type and value of what is offered for the last word."""
    shell = ShellComplete(group, {}, "mergeplan", "_MERGEPLAN_COMPLETE")
    *before, last = words
    return [(item.type, item.value) for item in shell.get_completions(before, last)]


def names(*words: str) -> list[str]:
    return [value for _, value in offered(*words)]


def test_commands_options_and_values_are_offered():
    assert names("in") == ["init", "inspect"]
    assert names("") == list(COMMANDS)
    assert {"--overwrite", "--base"} <= set(names("init", "--"))
    assert names("calibrate", "--for", "se") == ["select"]
    assert names("merge", "--device", "c") == ["cpu", "cuda"]


def test_wherever_a_path_may_stand_files_are_offered():
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Argument):
                assert offered(name, "x")[-1] == ("file", "x"), name
    assert offered("evaluate", "m", "--data", "x") == [("file", "x")]
    assert offered("init", "--data", "x") == [("file", "x")]


def test_commands_are_described_by_the_list_without_being_imported():
    env = {"_MERGEPLAN_COMPLETE": "zsh_complete", "COMP_WORDS": "mergeplan ca", "COMP_CWORD": "1"}
    done = cli_process(env=env)
    assert done.stdout.split("\n")[:3] == ["plain", "calibrate", COMMANDS["calibrate"]]
    code = (
        "import sys\nfrom mergeplan.cli import group\n"
        "from click.shell_completion import ShellComplete\n"
        "ShellComplete(group, {}, 'mergeplan', 'X').get_completions([], '')\n"
        "print([name for name in sys.modules if name.startswith('mergeplan.cli.')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['mergeplan.cli.streams']"


def commands_of(shell: str) -> str:
    """What the page says to run."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "completion.md").read_text(), re.S)
    [found] = [block for block in blocks if f"{shell}_source" in block]
    return found


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """A home of its own, with the command on the path."""
    command = tmp_path / "bin" / "mergeplan"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mergeplan "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "HOME": str(tmp_path), "PATH": path}


def ran(shell: str, script: str, env: dict[str, str]) -> list[str]:
    """The words that a script prints in a shell, after the page's commands."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not here")
    subprocess.run(["/bin/sh", "-ec", commands_of(shell)], env=env, check=True)
    done = subprocess.run([program, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_pages_script_works_in_bash(home):
    script = """
        source ~/.local/share/bash-completion/completions/mergeplan
        complete -p mergeplan | grep -q _mergeplan_completion || exit 1
        COMP_WORDS=(mergeplan in) COMP_CWORD=1
        _mergeplan_completion mergeplan
        echo "${COMPREPLY[@]}"
    """
    assert ran("bash", script, home) == ["init inspect"]


def test_the_pages_script_works_in_zsh(home):
    script = """
        fpath+=~/.zfunc; autoload -Uz compinit; compinit -u -D
        [[ ${_comps[mergeplan]} == _mergeplan ]] || exit 1
        source ~/.zfunc/_mergeplan
        # Outside of a line that is edited there is nowhere to put what is found.
        _describe() { print -l $completions_with_descriptions }
        words=(mergeplan in) CURRENT=2
        _mergeplan_completion
    """
    assert {f"{name}:{COMMANDS[name]}" for name in ("init", "inspect")} == set(
        ran("zsh", script, home)
    )


def test_the_pages_script_works_in_fish(home):
    found = ran("fish", "complete -C 'mergeplan in'", home)
    assert {"init", "inspect"} <= {line.partition("\t")[0] for line in found}


def test_a_word_that_is_no_command_gets_nothing_and_no_message():
    for words in ("mergeplan nonexist ", "mergeplan nonexist --o"):
        env = {"_MERGEPLAN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "2"}
        done = cli_process(env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert "error" not in done.stdout


@pytest.mark.parametrize("instruction", ["foo_source", "bash", "bash_nothing", "_"])
def test_a_shell_that_is_not_known_is_a_usage_error(instruction):
    done = cli_process(env={"_MERGEPLAN_COMPLETE": instruction})
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected bash, zsh or fish" in done.stderr
    assert f"found `{instruction}`" in done.stderr
