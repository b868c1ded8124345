"""The first moments of the command, before signals are taken: Ctrl-C prints no traceback.

It imports nothing, so that there is no moment before it.
"""

import sys


def is_command() -> bool:
    """Whether this process is `mergeplan` or `python -m mergeplan`, and no program of a user's."""
    first = next(iter(getattr(sys, "argv", ())), "")
    if first == "-m":
        return "mergeplan" in sys.orig_argv
    name = first.replace("\\", "/").rpartition("/")[2]
    return name in ("mergeplan", "mergeplan.exe") or name.startswith("mergeplan-script")


def be_quiet() -> None:
    """Let a Ctrl-C that nobody catches end the process with a word."""

    def told(kind, error, trace):  # type: ignore[no-untyped-def]
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        elif sys.stderr is not None:
            sys.stderr.write("stopped\n")

    sys.excepthook = told
