"""What the wheels and the sdist of a release hold: `check_dist.py FILE…`, with `--tag v1.2.3` too.

Every file of ours in them is one that git has, and nothing of the package is missing: what lay
about in a folder is not published. The tag is the version of Cargo.toml, which the
changelog has with its day. Exit code 1 where something does not hold.
"""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 12 << 20
WHEEL = (r"mergeplan/_native\.(abi3\.so|pyd)", r"{info}/licenses/LICENSE", r"{info}/sboms/.+\.json")
SDIST = ("Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff")


def version() -> str:
    found = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.M)
    assert found, "Cargo.toml has no version"
    return found[1]


def tracked(*folders: str) -> set[str]:
    """Paths that git has below some folders."""
    words = ("git", "ls-files", "-z", *folders)
    return {*subprocess.check_output(words, cwd=ROOT, encoding="utf-8").split("\0")} - {""}


def wheel_faults(path: Path) -> list[str]:
    """What is wrong with a wheel."""
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"mergeplan-{version()}.dist-info"
    needed = [pattern.format(info=re.escape(info)) for pattern in WHEEL]
    missing = [one for one in needed if not any(re.fullmatch(one, name) for name in names)]
    code = {name.removeprefix("python/") for name in tracked("python/mergeplan")}
    strange = {name for name in names - code if not name.startswith(f"{info}/")}
    strange = {name for name in strange if not re.fullmatch(WHEEL[0], name)}
    return [f"lacks `{name}`" for name in [*missing, *sorted(code - names)]] + [
        f"has `{name}`, which git has not" for name in sorted(strange)
    ]


def sdist_faults(path: Path) -> list[str]:
    """What is wrong with an sdist."""
    top = f"mergeplan-{version()}/"
    with tarfile.open(path) as archive:
        names = {one.name.removeprefix(top) for one in archive.getmembers() if not one.isdir()}
    code = tracked("python/mergeplan", "rust/core/src", "rust/py/src")
    return [f"lacks `{name}`" for name in sorted({*SDIST, *code} - names)] + [
        f"has `{name}`, which git has not" for name in sorted(names - tracked() - {"PKG-INFO"})
    ]


def tag_faults(tag: str) -> list[str]:
    """What a tag says other than the files of the repository."""
    now = version()
    faults = [] if tag == f"v{now}" else [f"is not `v{now}`, the version of Cargo.toml"]
    for name, line in (
        ("CHANGELOG.md", rf"## \[{re.escape(now)}\] - \d{{4}}-\d\d-\d\d"),
        ("CITATION.cff", rf"version: {re.escape(now)}"),
    ):
        if not re.search(rf"^{line}$", (ROOT / name).read_text(encoding="utf-8"), re.M):
            faults.append(f"{name} has no line `{line}`")
    return faults


def main(words: list[str]) -> int:
    faults = []
    if "--tag" in words:
        tag = words.pop(words.index("--tag") + 1)
        words.remove("--tag")
        faults += [f"the tag `{tag}`: {fault}" for fault in tag_faults(tag)]
    for path in map(Path, words):
        size = path.stat().st_size
        found = wheel_faults(path) if path.suffix == ".whl" else sdist_faults(path)
        if size > LARGEST:
            found.append(f"has {size:,} bytes, more than {LARGEST:,}")
        faults += [f"{path.name} {fault}" for fault in found]
        print(f"{path.name}: {size / 1e6:.1f} MB, {'as it should be' if not found else 'at fault'}")
    print(*faults, sep="\n", file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
