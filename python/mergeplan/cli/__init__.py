"""The command line: one file for each command, `options` for what several share.

Commands are imported when they run, so that `--help` is quick. They may import everything.
"""

import os
import re
import shlex
import sys
from importlib import import_module
from typing import Any

import click

from mergeplan._native import __version__, tell_bus_errors
from mergeplan.cli import streams
from mergeplan.display.text import counted, cut
from mergeplan.errors import (
    MOST_FAULTS,
    InputError,
    MergeplanError,
    SeveralFaultsError,
    SeveralMetricsError,
    SurroundingsError,
    legible,
)
from mergeplan.system import signals
from mergeplan.system.ray import HeadLostError

COMMANDS = {
    "init": "write a pool.yml of the models, adapters and texts in some folders",
    "merge": "run a mergekit YAML",
    "average": "average the checkpoints of a run, by one schedule or several",
    "check": "everything that is wrong with a config or a pool, or what it would do",
    "inspect": "what is in checkpoints, whether they fit, what a merge of them takes",
    "evaluate": "token cross-entropy on held-out text, in nats per token",
    "compare": "several models by domains, and their completions of the same prompts",
    "sample": "choose subsets of a pool to measure, and write their YAMLs",
    "calibrate": "measure merges of a pool in memory until its law says how many to merge",
    "status": "how a run of calibrate or tune stands, and the command that goes on",
    "fit": "fit the merging law to measured losses",
    "suggest": "recommend how many experts to merge, at which size, by which method",
    "select": "name the best experts and weights, from measurements of a few merges",
    "tune": "tune a merge's weights by gradients, for each expert or each of its layers",
    "similarity": "compare the experts of a pool by their weights, without any evaluation",
    "plot": "draw the fitted curves with their bands",
    "report": "one self-contained page of a run: verdict, law, subsets, experts",
    "extract-lora": "what a model learned beyond its base, as a LoRA adapter",
    "verify": "check a merge against its manifest",
    "diff": "compare two checkpoints tensor by tensor, in ULPs",
    "mergekit": "run mergekit's own mergekit-yaml with mergeplan's kernels in it",
    "bench": "measure merges on this machine beside mergekit and a plain copy",
    "doctor": "what this machine has for mergeplan, and what would be slow or fail",
    "demo": "the whole path on a small bundled pool",
}


class LazyGroup(click.Group):
    """Lists commands from a table and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(
            f"mergeplan.cli.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Commands by the table; click would import each for its help."""
        from click.shell_completion import CompletionItem

        found = [(name, text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        items = [CompletionItem(name, help=text) for name, text in found]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # click would take it for the reader of our output, and say nothing.
            raise SurroundingsError("a process that this command worked with has ended") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        # At a Tab nothing is offered behind a word that is no command, and nothing is said.
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from mergeplan.errors import nearest

            near = nearest(name, list(COMMANDS))
            raise click.UsageError(f"no such command `{name}`{f'; {near}' if near else ''}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mergeplan")
def group() -> None:
    """Plan language-model merges by their scaling law, and run them fast.

    Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the input or its
    surroundings are at fault, 2 usage, 3 a fault of mergeplan, 4 nothing reaches the target,
    130 and 143 stopped by Ctrl-C and SIGTERM.
    """


def main() -> None:
    """Run the command line; every failure becomes a message, a hint and an exit code."""
    # torch's threads sleep sooner while they wait for each other: alone that costs nothing, and
    # spinning as long as they do unasked they take the cores from whoever else works here.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        signals.arm()
        tell_bus_errors()
        code = _run()
        # From here on a signal ends the process, without a word.
        signals.disarm()
    except KeyboardInterrupt:
        signals.disarm()
        signals.forget_interrupt()
        _say("stopped")
        code = 130
    except SystemExit:
        # Or the next signal would raise in the end of the interpreter, which prints a traceback.
        signals.disarm()
        raise
    sys.exit(code)


def _run() -> int:
    try:
        streams.prepare()
        _check_completion()
        code: int = group.main(standalone_mode=False, prog_name="mergeplan") or 0
        sys.stdout.flush()
        return code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _misused(error)
    except (KeyboardInterrupt, click.Abort):
        raise KeyboardInterrupt from None
    except SystemExit:
        raise
    except streams.ReaderLeftError:
        return 0
    except BaseException as error:
        return _told(error)


def _check_completion() -> None:
    """Refuse what click takes for success or for a fault of ours: a shell that it does not know."""
    from click.shell_completion import get_completion_class

    instruction = os.environ.get(_COMPLETE, "")
    shell, _, step = instruction.partition("_")
    if instruction and (get_completion_class(shell) is None or step not in ("source", "complete")):
        raise click.UsageError(
            f"{_COMPLETE}: expected bash, zsh or fish, `_`, and source or complete, found"
            f" `{cut(instruction, 40)}`",
            click.Context(group, info_name="mergeplan"),
        )


# Where click looks for what a shell asks.
_COMPLETE = "_MERGEPLAN_COMPLETE"


def _misused(error: click.ClickException) -> int:
    """Say it as we say what is wrong; returns click's exit code."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()  # the help, since there are no arguments
        return error.exit_code
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    # Where a word of ours has backticks, only the option is click's.
    quoted = r"'(-[^']*)'" if "`" in message else r"'([^']*)'"
    message = re.sub(quoted, r"`\1`", message)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    hint = getattr(error, "hint", None) or hint
    return _fail(message[:1].lower() + message[1:], hint, error.exit_code)


def _possible(hint: str | None) -> str | None:
    """A hint of the core, which does not know that few commands merge what is not finite."""
    if hint is None or "`--allow-nonfinite`" not in hint or "--allow-nonfinite" in _options():
        return hint
    return "leave that model out, or mend its file"


def _options() -> set[str]:
    """Of the command that runs."""
    context = click.Context(group)
    command = group.get_command(context, sys.argv[1]) if len(sys.argv) > 1 else None
    return {flag for option in (command.params if command else ()) for flag in option.opts}


def _told(error: BaseException) -> int:
    """Say what is wrong; returns the exit code. A panic of the core is no `Exception`."""
    if isinstance(error, SeveralMetricsError):
        again = shlex.join(["mergeplan", *sys.argv[1:], "--metric", error.metric])
        return _fail(error.message, f"name one, such as `{again}`", error.exit_code)
    if isinstance(error, SeveralFaultsError):
        for fault in error.faults[:MOST_FAULTS]:
            _fail(fault.message, fault.hint, fault.exit_code, fault.excerpt)
        if (more := len(error.faults) - MOST_FAULTS) > 0:
            _say(f"error: and {counted(more, 'other faults')}")
        return error.exit_code
    if isinstance(error, InputError):
        return _fail(error.message, _possible(error.hint), error.exit_code, error.excerpt)
    if isinstance(error, HeadLostError):
        # A thread still waits for the head inside Ray, and the interpreter's end crashes over it.
        os._exit(_fail(error.message, error.hint, error.exit_code))
    if isinstance(error, MergeplanError):
        return _fail(error.message, error.hint, error.exit_code)
    if isinstance(error, MemoryError):
        return _fail("the system gives no more memory", _LIMITS, 1)
    if isinstance(error, OSError):
        where = f": `{error.filename}`" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", None, 1)
    if isinstance(error, ImportError) and not str(error.name).startswith("mergeplan"):
        # Of a package that is broken, or that the system gives no memory for.
        hint = "install this package and what it needs again, or see `ulimit -a`"
        return _fail(f"cannot load a library: {cut(error, 300)}", hint, 1)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _fail("the system gives no more threads", _LIMITS, 1)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be there
        return _fail(f"the GPU has too little memory: {cut(error, 200)}", _SMALLER, 1)
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):
        return _fail("the system gives no more memory", _LIMITS, 1)
    if os.environ.get("MERGEPLAN_TRACEBACK"):
        raise error
    hint = "this is a fault of mergeplan; MERGEPLAN_TRACEBACK=1 shows where"
    return _fail(f"{type(error).__name__}: {cut(error, 300)}", hint, 3)


_LIMITS = "`ulimit -a` shows the limits of this shell; a container has limits of its own"
_SMALLER = "`--batch-tokens` or `--max-length` of less takes less, and so does `--device cpu`"


def _fail(message: str, hint: str | None, code: int, excerpt: str = "") -> int:
    _say(f"error: {legible(message)}")
    if excerpt:
        _say(excerpt)
    if hint:
        _say(f"hint: {hint}" if excerpt else f"\nhint: {hint}")
    return code


def _say(text: str) -> None:
    click.echo(text, err=True)
