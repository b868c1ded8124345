"""What the kernel says of the machine: processor, memory, file systems. Linux says most of it.

Each function takes the folder in which `proc` and `sys` lie.
"""

import math
import os
import platform
import re
from pathlib import Path

ROOT = Path("/")
# File systems whose files lie on another machine, or are of somebody's own making. The core reads
# their files where it maps others: `is_remote` in rust/core/src/checkpoint/reader.rs.
_REMOTE = ("nfs", "nfs4", "cifs", "smbfs", "smb3", "9p", "ceph", "afs", "lustre")
_FUSE = "fuse"
# cgroups of version 1 write what is no limit as a number of about 2^63.
_NO_LIMIT = 1 << 60


def _text(path: Path) -> str:
    """The text of a file, empty where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def cpu_model(root: Path = ROOT) -> str:
    """The processor's name."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_features(root: Path = ROOT) -> frozenset[str] | None:
    """Instructions by the kernel's names, such as `avx512_bf16`; `None` where it does not say."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return None


def memory_bytes() -> int | None:
    """Memory of the whole machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def usable_cores() -> int | None:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def worker_threads(root: Path = ROOT) -> int:
    """How many threads can work at a time: the cores that this process may run on, or as many as
    its control groups allow.

    A container on a machine of 64 cores may have two: 62 threads more take memory and time.
    """
    cores, allowed = usable_cores() or 1, core_limit(root)
    return max(1, cores if allowed is None else min(cores, math.ceil(allowed)))


def memory_limit(root: Path = ROOT) -> int | None:
    """The least memory that the control groups around this process allow; `None` for no limit."""
    files = ("memory.max", "memory.limit_in_bytes")
    found = [int(text) for text in _of_groups("memory", files, root) if text.isdecimal()]
    limits = [limit for limit in found if limit < _NO_LIMIT]
    return min(limits, default=None)


def core_limit(root: Path = ROOT) -> float | None:
    """The share of cores that the control groups allow, as a number of them; `None` for all."""
    quotas = [text.split() for text in _of_groups("cpu", ("cpu.max",), root)]
    firsts, seconds = (
        _of_groups("cpu", (f"cpu.cfs_{word}_us",), root) for word in ("quota", "period")
    )
    quotas += [list(pair) for pair in zip(firsts, seconds, strict=False)]
    found = [
        int(pair[0]) / int(pair[1])
        for pair in quotas
        if len(pair) == 2 and all(part.isdecimal() for part in pair) and int(pair[1])
    ]
    return min(found, default=None)


def _of_groups(controller: str, files: tuple[str, ...], root: Path) -> list[str]:
    """What files of the control groups around this process say, of version 1 or 2.

    In a container the group's own path may not be there: then the mount is the group.
    """
    texts = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controller
        elif number == "0":
            mount = root / "sys/fs/cgroup"
        else:
            continue
        group = Path(os.path.normpath(mount / path.lstrip("/")))
        around = [one for one in (group, *group.parents) if one.is_relative_to(mount)] or [mount]
        texts += [found for one in around for file in files if (found := _text(one / file).strip())]
    return texts


def file_system(path: Path, root: Path = ROOT) -> str | None:
    """The kind of file system that a path lies on, as the kernel calls it; `None` where it is not
    known."""
    place = os.path.realpath(path)
    found, longest = None, -1
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        # Spaces and their like are written by their numbers.
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        # Of two mounts in one place the later one is on top.
        if inside and len(mount) >= longest:
            found, longest = after.split()[0], len(mount)
    return found


def is_remote(kind: str | None) -> bool:
    """Whether a file system's kind is one whose files the core does not map.

    >>> is_remote("nfs4"), is_remote("fuse.sshfs"), is_remote("ext4")
    (True, True, False)
    """
    return kind is not None and (kind in _REMOTE or kind.partition(".")[0] == _FUSE)
