"""Known advisories for what constraints.txt and Cargo.lock name; exit 1 where there are some.

Needs `pip-audit` and `cargo-audit`. What cannot be asked, since a database is not reached or a tool
is not there, is marked as not run, which fails nothing: a release is not held up by a network.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHON = (
    *("pip-audit", "--requirement", "constraints.txt", "--disable-pip", "--no-deps"),
    *("--progress-spinner", "off", "--format", "json"),
)
RUST = ("cargo", "audit", "--json")


def ask(words: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """What a tool found, or why it found nothing."""
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
        return json.loads(done.stdout), ""
    except ValueError:  # it does not say what it found, but why it could not look
        return {}, done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, str(error)


def not_run(what: str, why: str) -> None:
    print(f"advisories for {what}: NOT RUN: {why}")
    if os.environ.get("GITHUB_ACTIONS"):
        print(f"::warning title=advisories for {what}::not run: {why}")


def python_packages() -> list[str]:
    """Advisories for Python packages; one that the database does not give was not looked at."""
    found, why = ask(PYTHON)
    packages = found.get("dependencies", [])
    skipped = [one for one in packages if "skip_reason" in one]
    if len(skipped) == len(packages):
        not_run("Python packages", why or (skipped[0]["skip_reason"] if skipped else "no packages"))
        return []
    if skipped:
        not_run("some Python packages", ", ".join(one["name"] for one in skipped))
    print(f"advisories for Python packages: {len(packages) - len(skipped)} packages were asked for")
    return [f"{p['name']} {p['version']}: {a['id']}" for p in packages for a in p.get("vulns", ())]


def rust_crates() -> list[str]:
    """Advisories for Rust crates."""
    found, why = ask(RUST)
    if not found:
        not_run("Rust crates", why)
        return []
    print(f"advisories for Rust crates: {found['lockfile']['dependency-count']} were asked for")
    entries = found["vulnerabilities"]["list"]
    return [f"{e['package']['name']}: {e['advisory']['id']}" for e in entries]


if __name__ == "__main__":
    advisories = [*python_packages(), *rust_crates()]
    print(*advisories, sep="\n")
    sys.exit(bool(advisories))
