"""Commands for a shell, forked from one process that has imported what takes long.

A page of the documentation calls the command ten times; torch, at each, would take seconds. The
shell finds small programs, which hand their arguments, folder, environment and streams to the
server and end with the exit code that it sends.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

_PROGRAMS = ("mergeplan", "mergekit-yaml", "python")
_CLIENT = """#!{python} -IS
import json, os, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect({address!r})
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
told = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(there, [len(told).to_bytes(4, "big")], [0, 1, 2])
there.sendall(told)
sys.exit((there.recv(1) or b"\\xff")[0])
"""


@contextlib.contextmanager
def warm_programs(folder: Path) -> Iterator[Path]:
    """A folder for `PATH`, as long as the server is there."""
    address = str(folder / "server")
    programs = folder / "bin"
    programs.mkdir()
    for name in _PROGRAMS:
        (programs / name).write_text(_CLIENT.format(python=sys.executable, address=address))
        (programs / name).chmod(0o755)
    command = [sys.executable, "-m", __name__, address]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        assert server.stdout.readline() == b"ready\n"
        yield programs
        server.stdin.close()


def _serve(address: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    _import()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    print("ready", flush=True)
    while True:
        asked, _ = listening.accept()
        with asked:
            if os.fork() == 0:
                listening.close()
                _answer(asked)


def _import() -> None:
    for name in (
        "matplotlib.backends.backend_agg",
        "mergeplan.cli.calibrate",
        "mergeplan.merging.merge",
        "scipy.optimize",
        "scipy.stats",
        "transformers.models.qwen2.modeling_qwen2",
    ):
        importlib.import_module(name)


def _end_with_stdin() -> None:
    os.read(0, 1)  # not `sys.stdin`, whose lock the forked would inherit
    os.killpg(0, signal.SIGKILL)  # and what still runs for a shell that is gone


def _answer(asked: socket.socket) -> None:
    """Be the program, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(asked, 4, 3)
    told = b""
    while len(told) < int.from_bytes(length, "big"):
        told += asked.recv(1 << 16)
    words, folder, environment = json.loads(told)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _run(words)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    asked.sendall(bytes([code]))
    os._exit(code)


def _run(words: list[str]) -> None:
    program, *arguments = words
    if program == "mergeplan":
        from mergeplan.cli import main

        sys.argv = words
        main()
    elif program == "mergekit-yaml":
        from mergekit.scripts.run_yaml import main

        sys.argv = words
        main()
    else:
        sys.argv = arguments
        sys.path[0] = str(Path.cwd())
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
