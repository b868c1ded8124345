"""What of this machine and its packages would make mergeplan fail or be slow, and what to do."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergeplan._native import __version__, build_info
from mergeplan.display.summary import Summarized
from mergeplan.display.text import format_bytes, format_count, printable
from mergeplan.onboarding.gpus import gpu_checks
from mergeplan.onboarding.packages import EXTRAS, REQUIRED, Package, find_package
from mergeplan.onboarding.states import FAILS, MISSING, OK, SLOW, Check
from mergeplan.system.machine import (
    ROOT,
    core_limit,
    cpu_features,
    cpu_model,
    file_system,
    is_remote,
    memory_bytes,
    memory_limit,
    usable_cores,
)
from mergeplan.system.memory import available_bytes, default_limit

_LEAST_PYTHON = (3, 10)
# Of weights of 16 bits, a model of 1.5 billion parameters.
_LITTLE_ROOM = 3_000_000_000
# Models of a merge, times shards of each, that are open at once.
_FEW_FILES = 1024
_BFLOAT16 = ("avx512_bf16", "amx_tile", "bf16")


@dataclass(frozen=True, repr=False)
class Diagnosis(Summarized):
    """What was found.

    Attributes:
        checks: In the order of their importance to a first merge.
        facts: The numbers behind them, for scripts.
    """

    checks: tuple[Check, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether a plain merge has all that it needs."""
        return all(check.state != FAILS for check in self.checks)

    def summary(self) -> str:
        """A line for each check, and what to do where something is wrong."""
        wide = max(len(check.topic) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{check.state:7}  {check.topic:{wide}}  {check.found}".rstrip())
            lines += [f"{'':9}{'':{wide}}  {word}" for word in (check.why, check.hint) if word]
        return "\n".join(printable(line) for line in lines)

    def records(self) -> list[dict[str, Any]]:
        """A row for each check."""
        return [vars(check) for check in self.checks]


def doctor(*, devices: bool = False, root: Path = ROOT) -> Diagnosis:
    """Look at versions, extras, processor, memory, disks, limits, GPUs and the hub's settings.

    Nothing is imported to find it, and nothing is written.

    Args:
        devices: Let torch say which GPUs it sees; it is imported, which takes seconds.
        root: Where the kernel's `proc` and `sys` lie.

    Returns:
        A check for each, the facts behind them, and whether a plain merge works.

    Raises:
        Nothing: what cannot be found out is said to be unknown.

    Example:
        >>> import mergeplan
        >>> mergeplan.doctor().works
        True
    """
    facts: dict[str, Any] = {
        "mergeplan": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    checks = [
        *_versions(facts),
        *_packages(facts),
        *_processor(facts, root),
        *_memory(facts, root),
        *_disks(facts, root),
        *_limits(facts),
        *gpu_checks(facts, root, ask_torch=devices),
        *_hub(facts),
    ]
    return Diagnosis(tuple(checks), facts)


def _versions(facts: dict[str, Any]) -> Iterator[Check]:
    found = f"mergeplan {__version__}, Python {facts['python']}, {facts['system']}"
    if sys.version_info < _LEAST_PYTHON:
        yield Check(FAILS, "versions", found, "Python is older than 3.10", "use a newer one")
    elif build_info()["debug"]:
        why = "the core was built without optimisation: merges take many times as long"
        yield Check(SLOW, "versions", found, why, "`pip install .` builds it as it is meant")
    else:
        yield Check(OK, "versions", found)


def _packages(facts: dict[str, Any]) -> Iterator[Check]:
    required = [find_package(name, needed) for name, needed in REQUIRED.items()]
    extras = {
        name: [find_package(*one) for one in extra.packages.items()]
        for name, extra in EXTRAS.items()
    }
    every = [*required, *(package for packages in extras.values() for package in packages)]
    facts["packages"] = {package.name: package.version for package in every}
    faults = _faults(required)
    again = "`pip install mergeplan` again: it brings them"
    if faults:
        yield Check(FAILS, "packages", faults, "every command needs them", again)
    else:
        yield Check(OK, "packages", f"all {len(required)} that every command needs")
    for name, packages in extras.items():
        faults = _faults(packages)
        if faults:
            hint = f"`pip install 'mergeplan[{name}]'`"
            yield Check(MISSING, name, faults, f"needed for {EXTRAS[name].use}", hint)
        else:
            versions = ", ".join(f"{package.name} {package.version}" for package in packages)
            yield Check(OK, name, f"{versions}: {EXTRAS[name].use}")


def _faults(packages: list[Package]) -> str:
    return ", ".join(package.fault for package in packages if package.fault)


def _processor(facts: dict[str, Any], root: Path) -> Iterator[Check]:
    cores, usable, quota = os.cpu_count(), usable_cores(), core_limit(root)
    features = cpu_features(root)
    bfloat16 = None if features is None else any(name in features for name in _BFLOAT16)
    model = cpu_model(root)
    facts["cpu"] = {
        "model": model,
        "cores": cores,
        "usable_cores": usable,
        "core_limit": quota,
        "avx2": None if features is None else "avx2" in features,
        "avx512": None if features is None else "avx512f" in features,
        "bfloat16": bfloat16,
    }
    found = f"{model}, {cores} cores"
    if quota is not None and usable is not None and quota < usable:
        found += f", of which a limit allows {quota:g}"
    elif usable != cores:
        found += f", of which this process may use {usable}"
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and usable and 0 < int(threads) < usable:
        why = f"OMP_NUM_THREADS={threads}: models are scored on {threads} of {usable} cores"
        yield Check(SLOW, "processor", found, why, "unset it, or pass `--threads`")
    elif features is not None and _is_x86() and "avx2" not in features:
        why = "the fast variants of the merging kernels need AVX2, which it lacks"
        yield Check(SLOW, "processor", found, why, "merge on a newer machine")
    else:
        yield Check(OK, "processor", found)
    if bfloat16 is None:
        yield Check(OK, "bfloat16", "not known here; `calibrate --dtype auto` tries it")
    elif bfloat16:
        yield Check(OK, "bfloat16", "the processor computes in it: `--dtype auto` tries it")
    else:
        why = "the processor does not compute in bfloat16: scoring in float32 is the faster there"
        yield Check(OK, "bfloat16", "no", why, "`--dtype auto` takes float32 by itself")


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _memory(facts: dict[str, Any], root: Path) -> Iterator[Check]:
    total, limit, free = memory_bytes(), memory_limit(root), available_bytes()
    facts["memory"] = {"total_bytes": total, "limit_bytes": limit, "available_bytes": free}
    usable = [bytes_ for bytes_ in (limit, free) if bytes_ is not None]
    if total is None or not usable:
        yield Check(OK, "memory", "not known here")
        return
    room = min(usable)
    found = f"{format_bytes(total)}, {format_bytes(room)} to have"
    if limit is not None and limit < total:
        found += f" (a limit of {format_bytes(limit)})"
    least = default_limit(usable_cores() or 1)
    if room < least:
        why = f"a merge takes up to {format_bytes(least)} on all cores"
        hint = "`--threads 1` or `--memory-limit` take less"
        yield Check(SLOW, "memory", found, why, hint)
    else:
        found += f": merges stream; models up to {format_count(room / 4)} are scored in float32"
        yield Check(OK, "memory", found)


def _disks(facts: dict[str, Any], root: Path) -> Iterator[Check]:
    facts["disks"] = []
    for topic, find in (("disk", os.getcwd), ("temporary", tempfile.gettempdir)):
        try:
            place = Path(find())
            free = shutil.disk_usage(place).free
        except OSError as error:
            what = "the working folder is gone" if topic == "disk" else "no folder for such files"
            yield Check(SLOW, topic, what, error.strerror or "", "go to another, or set TMPDIR")
            continue
        kind, writable = file_system(place, root), os.access(place, os.W_OK)
        facts["disks"].append(
            {
                "path": place,
                "free_bytes": free,
                "file_system": kind,
                "remote": is_remote(kind),
                "writable": writable,
            }
        )
        found = f"{place}: {format_bytes(free)} free" + (f", {kind}" if kind else "")
        if topic == "temporary" and kind == "tmpfs":
            found += ", which is memory"
        if not writable:
            why = "it cannot be written to"
            hint = "work in another folder" if topic == "disk" else "set TMPDIR to another folder"
            yield Check(SLOW, topic, found, why, hint)
        elif is_remote(kind):
            why = "models there are not mapped but read, over the network each time"
            yield Check(SLOW, topic, found, why, "copy models to a disk of this machine first")
        elif free < _LITTLE_ROOM and topic == "disk":
            why = "a merge writes as much as one model: 2 bytes a parameter in 16 bits"
            yield Check(SLOW, topic, found, why, "write to another disk, or free some space")
        else:
            yield Check(OK, topic, found)


def _limits(facts: dict[str, Any]) -> Iterator[Check]:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        facts["open_files"] = None
        return
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    facts["open_files"] = {"soft": soft, "hard": hard}
    found = f"{_limit(soft)}, which a merge raises up to {_limit(hard)} where it must"
    if hard is not None and hard < _FEW_FILES:
        why = "merges of many models in many shards have all their files open, and may fail"
        yield Check(SLOW, "open files", found, why, "raise it: `ulimit -Hn`, or limits.conf")
    else:
        yield Check(OK, "open files", found)
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        why = "models that do not fit are not mapped but read, and torch may fail to load"
        yield Check(SLOW, "addresses", format_bytes(space), why, "`ulimit -v unlimited`")
    longest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if longest != resource.RLIM_INFINITY:
        why = f"no file may be longer than {format_bytes(longest)}: merges that write more fail"
        yield Check(SLOW, "file size", format_bytes(longest), why, "`ulimit -f unlimited`")


def _limit(limit: int | None) -> str:
    return "no limit" if limit is None else f"{limit:,}"


def _hub(facts: dict[str, Any]) -> Iterator[Check]:
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    facts["hub"] = {"cache": cache, "there": cache.is_dir(), "offline": offline}
    found = f"cache {cache}" + ("" if cache.is_dir() else ", which is not there yet")
    if offline:
        why = "HF_HUB_OFFLINE is set: models by hub id are found in the cache alone"
        yield Check(OK, "hub cache", found, why, "unset it to let `merge` download them")
    else:
        yield Check(OK, "hub cache", found)
