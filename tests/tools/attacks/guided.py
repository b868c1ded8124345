"""The parsers once more, guided by which of our lines an input reaches: atheris, libFuzzer's kin.

    pip install atheris
    python -m tests.tools.attacks.guided --seconds 60             # each target, one after the other
    python -m tests.tools.attacks.guided --only manifest --seconds 600

Each target has a process of its own, since libFuzzer ends it. What an input raises that is not
ours, or a message that echoes it, ends the target at once, and its input is printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def one(name: str, seconds: int, folder: Path) -> None:
    """Fuzz one target; does not return."""
    import atheris

    with atheris.instrument_imports(include=["mergeplan"]):
        from tests.tools.attacks.parser_targets import ground, targets
        from tests.tools.attacks.parsers import outcome_of

        at = ground(folder / "ground")
        target = next(target for target in targets(at) if target.name == name)
    os.chdir(at)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)

    def feed(data: bytes) -> None:
        outcome_of(target, at, data)

    options = [
        f"-max_total_time={seconds}",
        "-max_len=20000",
        "-timeout=20",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)], feed)
    atheris.Fuzz()


def main() -> int:
    """Run the targets, and tell what each came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", action="append", help="the target of this name; may be repeated")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        one(given.only[0], given.seconds, given.folder)
    failed = 0
    for name in given.only or _names():
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            command = [sys.executable, "-m", "tests.tools.attacks.guided", "--folder", folder]
            command += ["--only", name, "--seconds", str(given.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            lines = done.stderr.splitlines()
            stats = [line for line in lines if "number_of_executed_units" in line]
            reached = [line.split("cov: ")[1].split()[0] for line in lines if "cov: " in line]
            units = stats[0].split()[-1] if stats else "no"
            print(f"{name}: {units} inputs, {reached[-1] if reached else '?'} edges", flush=True)
            if done.returncode:
                failed += 1
                print("\n".join((done.stdout + done.stderr).splitlines()[-40:]), flush=True)
    return 1 if failed else 0


def _names() -> list[str]:
    from tests.tools.attacks.parser_targets import ground, targets

    with tempfile.TemporaryDirectory() as folder:
        return [target.name for target in targets(ground(Path(folder)))]


if __name__ == "__main__":
    sys.exit(main())
