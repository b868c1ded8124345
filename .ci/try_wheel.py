"""Installs a wheel into an empty environment where there is no Rust, and runs the demo.

`try_wheel.py WHEEL`; nothing but the wheel and the wheels of what it needs is used, and no file of
this repository: it runs in an empty folder. Any Python from 3.10 on.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

RUST = ("cargo", "rustc", "rustup", "cargo.exe", "rustc.exe", "rustup.exe")


def has_rust(folder: str) -> bool:
    return any((Path(folder) / name).exists() for name in RUST)


def main(wheel: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    folders = os.environ.get("PATH", "").split(os.pathsep)
    environment["PATH"] = os.pathsep.join(one for one in folders if not has_rust(one))
    with tempfile.TemporaryDirectory() as empty:
        venv.create(Path(empty) / "venv", with_pip=True)
        bin = Path(empty) / "venv" / ("Scripts" if os.name == "nt" else "bin")

        def run(program: str, *words: str) -> None:
            print(">", program, *words, flush=True)
            words = (str(bin / program), *words)
            subprocess.run(words, cwd=empty, env=environment, check=True, timeout=600)

        quiet = ("--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary=:all:")
        run("python", "-m", "pip", "install", *quiet, str(wheel.resolve()))
        run("python", "-c", "import mergeplan, sys; print(sys.version, mergeplan.__file__)")
        run("mergeplan", "--version")
        run("mergeplan", "demo")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
