"""Merges whose system calls fail, by `strace`, one at a time or from some moment on.

A command ends with 0 and a right output, or with 1 and one message; an older output is never lost,
and the same command with `--resume`, when the fault is gone, makes the bytes of an undisturbed one.
"""

from pathlib import Path
from random import Random

from tests.tools.attacks.children import Child, Ended
from tests.tools.attacks.ground import Ground
from tests.tools.attacks.judge import Fault, Judge, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import SCENARIOS, Scenario, can_mount, undisturbed

_DENIED = ("EACCES", "EPERM", "EIO", "EROFS")
_FULL = ("ENOSPC", "EIO", "EDQUOT")
# What each call may fail with, of what the manual pages and odd file systems know.
ERRORS: dict[str, tuple[str, ...]] = {
    "openat": (*_DENIED, "EMFILE", "ENFILE", "ENOSPC", "ELOOP", "ESTALE"),
    "read": ("EIO", "ESTALE"),
    "pread64": ("EIO", "ESTALE"),
    "write": (*_FULL, "EFBIG"),
    "pwrite64": (*_FULL, "EFBIG"),
    "fsync": (*_FULL, "EINVAL"),
    "fdatasync": _FULL,
    "ftruncate": (*_FULL, "EPERM", "EFBIG"),
    "fallocate": (*_FULL, "EOPNOTSUPP"),
    "copy_file_range": ("EXDEV", "EIO", "ENOSPC", "EOPNOTSUPP"),
    "sendfile": ("EIO", "EINVAL"),
    "rename": (*_DENIED, "EXDEV", "EBUSY", "ENOSPC"),
    "renameat2": (*_DENIED, "EINVAL", "ENOSYS", "EXDEV", "EBUSY"),
    "unlink": (*_DENIED, "EBUSY"),
    "unlinkat": (*_DENIED, "EBUSY"),
    "mkdir": (*_DENIED, "ENOSPC", "EMLINK"),
    "rmdir": (*_DENIED, "EBUSY", "ENOTEMPTY"),
    "link": (*_DENIED, "EMLINK"),
    "linkat": (*_DENIED, "EMLINK"),
    "chmod": ("EPERM", "EIO"),
    "fchmod": ("EPERM", "EIO"),
    "fchmodat": ("EPERM", "EIO"),
    "flock": ("ENOLCK", "EAGAIN", "EIO", "EOPNOTSUPP"),
    "mmap": ("ENOMEM", "ENODEV", "EACCES"),
    "madvise": ("EINVAL", "EIO"),
    "stat": ("EACCES", "EIO", "ESTALE"),
    "lstat": ("EACCES", "EIO", "ESTALE"),
    "newfstatat": ("EACCES", "EIO", "ESTALE"),
    "statx": ("EACCES", "EIO", "ENOSYS"),
    "fstat": ("EIO", "ESTALE"),
    "statfs": ("EIO", "ENOSYS"),
    "readlink": ("EACCES", "EIO"),
    "getdents64": ("EIO", "ESTALE"),
    "getcwd": ("ENOENT", "EACCES"),
    "lseek": ("ESPIPE",),
    "close": ("EIO", "ENOSPC"),
    "clone3": ("EAGAIN", "ENOMEM"),
    "sched_getaffinity": ("EINVAL", "EPERM"),
    "prlimit64": ("EPERM",),
}


class Syscalls:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.scenarios = [one for one in SCENARIOS if not (one.mount and can_mount())]

    def play(self, chance: Random) -> str:
        """One merge with a failing call, and its completion."""
        scenario = chance.choice(self.scenarios)
        calls = undisturbed(self.ground, scenario).calls
        call = chance.choice([call for call in ERRORS if call in calls])
        error = chance.choice(ERRORS[call])
        when = f"{chance.randint(1, calls[call])}{chance.choice(['', '', '+'])}"
        site = self.ground.site()
        try:
            scenario.prepare(self.ground, site)
            judge = Judge(self.ground, scenario, site)
            inject = f"inject={call}:error={error}:when={when}"
            words = scenario.command(self.ground)
            strace = ("-e", f"trace={call}", "-e", inject)
            ended = Child(words, site, notes=self.ground.notes(site), strace=strace).end()
            _judge(judge, ended)
            self._complete(scenario, judge, site, ended)
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{scenario.name}, {call} {when}: {error}] {fault}") from fault
        finally:
            self.ground.leave(site)
        if not ended.injected:
            return "not met"
        return f"{call}: exit code {ended.code}"

    def _complete(self, scenario: Scenario, judge: Judge, site: Path, before: Ended) -> None:
        ended = self.ground.run(site, scenario.resumed(self.ground))
        spoke_properly(ended, (0,))
        judge.surroundings()
        if not judge.output():
            raise Fault(f"resumed, and the output is not there: {ended}, after {before}")


def _judge(judge: Judge, ended: Ended) -> None:
    mute = any(f"write({number}<" in line for line in ended.injected for number in (1, 2))
    spoke_properly(ended, (0, 1), mute=mute)
    judge.surroundings()
    # Files that move onto a mount point one by one may be stopped half-way.
    complete = judge.output(killed=ended.code != 0)
    if ended.code == 0 and not complete:
        raise Fault(f"exit code 0, and the output is not there: {ended}")


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of failing system calls."""
    return run_rounds("syscalls", Syscalls(ground).play, limits)
