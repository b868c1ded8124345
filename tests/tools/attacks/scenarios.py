"""What a merge finds when it begins, and what it takes where nobody disturbs it."""

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.tools.attacks.children import Child
from tests.tools.attacks.ground import MANY, OUT, PARTIAL, Ground
from tests.tools.attacks.snapshots import Snapshot, contents

OLD_MODE, EMPTY_MODE = 0o751, 0o705
Prepare = Callable[[Ground, Path], None]


@dataclass(frozen=True)
class Scenario:
    """A command, and what it finds.

    Attributes:
        prepare: Makes what is there before it, in a site.
        words: The command's flags beside those of `Ground.words`.
        many: Whether several outputs are made at once.
        mount: Whether OUT is a mount point.
    """

    name: str
    prepare: Prepare
    words: tuple[str, ...] = ()
    many: bool = False
    mount: bool = False

    def command(self, ground: Ground) -> list[str]:
        """The words of the command."""
        words = ground.words("ties", *self.words)
        if self.many:
            words[1:3] = ["--many", "subsets.csv", OUT]
        return words

    def resumed(self, ground: Ground) -> list[str]:
        """The words with which a later run goes on."""
        words = [word for word in self.command(ground) if word != "--discard"]
        return [*words, *({"--resume"} - set(words))]

    def expected(self, ground: Ground) -> dict[str, Snapshot]:
        """Each output, and what it becomes."""
        if not self.many:
            return {OUT: ground.expected("ties")}
        root = ground.kept(self.command(ground)) / OUT
        found = {f"{OUT}/{one.key}": contents(root / one.key) for one in MANY.values()}
        return {name: what for name, what in found.items() if what is not None}


def old(ground: Ground, site: Path) -> None:
    """An older output, of another recipe, with a mode of its own."""
    shutil.copytree(ground.output("linear"), site / OUT)
    (site / OUT).chmod(OLD_MODE)


def empty(ground: Ground, site: Path) -> None:
    """A folder that the user made for the output."""
    (site / OUT).mkdir()
    (site / OUT).chmod(EMPTY_MODE)


def left(point: str) -> Prepare:
    """What a merge leaves that is killed at a point of `MERGEPLAN_FAULT`."""

    def prepare(ground: Ground, site: Path) -> None:
        kept = ground.kept(ground.words("ties"), point)
        for name in (PARTIAL, OUT):
            if (kept / name).exists():
                shutil.copytree(kept / name, site / name, symlinks=True)

    return prepare


def both(*prepares: Prepare) -> Prepare:
    """Several states at once."""

    def prepare(ground: Ground, site: Path) -> None:
        for one in prepares:
            one(ground, site)

    return prepare


def mounted(ground: Ground, site: Path) -> None:
    """An older output on a disk that is mounted where the output goes."""
    (site / OUT).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", site / OUT], check=True)
    shutil.copytree(ground.output("linear"), site / OUT, dirs_exist_ok=True)


def nothing(ground: Ground, site: Path) -> None:
    """A place that is free."""


SCENARIOS = (
    Scenario("fresh", nothing),
    Scenario("empty", empty),
    Scenario("overwrite", old, ("--overwrite",)),
    Scenario("resume", left("journal:4"), ("--resume",)),
    Scenario("resume early", left("layout:1"), ("--resume",)),
    Scenario("resume late", left("index:1"), ("--resume",)),
    Scenario("resume published", left("published:1"), ("--resume",)),
    Scenario("resume over old", both(left("journal:4"), old), ("--resume", "--overwrite")),
    Scenario("discard", left("journal:4"), ("--discard",)),
    Scenario("many", nothing, many=True),
    Scenario("mount", mounted, ("--overwrite",), mount=True),
)


def can_mount() -> str:
    """Why no disk can be mounted; empty where one can."""
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
    )
    return done.stderr.strip()


@dataclass(frozen=True)
class Undisturbed:
    """What a command takes that nobody disturbs.

    Attributes:
        calls: How often one thread, the one that does most, makes each system call.
    """

    seconds: float
    calls: dict[str, int]


def undisturbed(ground: Ground, scenario: Scenario) -> Undisturbed:
    """What a scenario's command takes."""
    found: Undisturbed = ground.once(scenario.name, lambda: _measure(ground, scenario))
    return found


def _measure(ground: Ground, scenario: Scenario) -> Undisturbed:
    calls: Counter[tuple[str, str]] = Counter()
    seconds = 0.0
    for strace in ((), ("-e", "trace=all", "-e", "signal=none")):
        site = ground.site()
        scenario.prepare(ground, site)
        begun = time.monotonic()
        child = Child(scenario.command(ground), site, notes=ground.notes(site), strace=strace)
        ended = child.end()
        assert ended.code == 0, ended
        if strace:
            for line in child.log.read_text("utf-8", "replace").splitlines():
                thread, call = line.split("(")[0].split()[:2]
                calls[thread, call] += "resumed>" not in line
        else:
            seconds = time.monotonic() - begun
        ground.leave(site)
    most: dict[str, int] = {}
    for (_, call), count in calls.items():
        most[call] = max(count, most.get(call, 0))
    return Undisturbed(seconds, most)
