"""Commands that write files of their own, while system calls fail or a kill ends them.

The older file is there or the new one, whole; what else lies there stays; only a kill, or a file
that cannot be removed, leaves one that is half written; the same command, undisturbed, ends well.
"""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import mergeplan
from tests.tools.attacks.children import Child, Ended, preload
from tests.tools.attacks.ground import Ground
from tests.tools.attacks.judge import Fault, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.snapshots import Snapshot, difference, snapshot
from tests.tools.attacks.syscalls import ERRORS

_POOL, _TABLE = (str(mergeplan.DEMO_POOL / name) for name in ("pool.yml", "measurements.csv"))
_FIT = ("fit", _TABLE, "--method", "task_arithmetic", "-o", "fitted.json")
_SAMPLE = ("sample", _POOL, "-o", "sampled", "--k", "1", "--method")
# Each with what ran before it, undisturbed.
_COMMANDS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "a new file": ((), _FIT),
    "a replaced file": ((*_FIT, "--form", "interference"), (*_FIT, "--overwrite")),
    "a new sample": ((), (*_SAMPLE, "average")),
    "a sample that grows": ((*_SAMPLE, "average"), (*_SAMPLE, "task_arithmetic")),
}
_LEFT = re.compile(r"(.*/)?\.mergeplan-[0-9a-f]+(\.partial)?")


class Writers:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.before: dict[str, Path] = {}
        self.expected: dict[str, Snapshot] = {}
        self.calls: dict[str, Counter[str]] = {}
        for name, (first, words) in _COMMANDS.items():
            site = self.before[name] = ground.site()
            (site / "fitted.json.partial").write_text("mine")
            if first:
                preload(first, site, ground.notes(site))
            done = self._copy(name)
            preload(words, done, ground.notes(done))
            self.expected[name] = snapshot(done)
            traced = self._copy(name)
            child = Child(words, traced, notes=ground.notes(traced), strace=("-e", "trace=all"))
            assert child.end().code == 0
            lines = child.log.read_text("utf-8", "replace").splitlines()
            self.calls[name] = Counter(line.split("(")[0].split()[-1] for line in lines)

    def _copy(self, name: str) -> Path:
        site = self.ground.site()
        shutil.copytree(self.before[name], site, dirs_exist_ok=True)
        return site

    def play(self, chance: Random) -> str:
        """One command with a failing call, or a kill at one, and its completion."""
        name = chance.choice(list(_COMMANDS))
        words, calls = _COMMANDS[name][1], self.calls[name]
        call = chance.choice([call for call in ERRORS if call in calls])
        killed = chance.random() < 0.3
        fault = "signal=SIGKILL" if killed else f"error={chance.choice(ERRORS[call])}"
        when = f"{chance.randint(1, calls[call])}{chance.choice(['', '', '+'])}"
        site = self._copy(name)
        strace = ("-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}")
        try:
            ended = Child(words, site, notes=self.ground.notes(site), strace=strace).end()
            self._judge(name, site, ended, call)
            again = self.ground.run(site, words)
            # A new file that is there by now is refused.
            spoke_properly(again, (0, 1) if name == "a new file" else (0,))
            self._judge(name, site, again, call)
        except (Fault, TimeoutError) as error:
            raise Fault(f"[{name}, {call} {when}: {fault}] {error}") from error
        finally:
            self.ground.leave(site)
        return f"{name}: exit code {ended.code}"

    def _judge(self, name: str, site: Path, ended: Ended, call: str) -> None:
        mute = any(f"write({number}<" in line for line in ended.injected for number in (1, 2))
        spoke_properly(ended, (0, 1, -9), mute=mute)
        before, after = snapshot(self.before[name]), self.expected[name]
        found = {path: what for path, what in snapshot(site).items() if not _LEFT.fullmatch(path)}
        for path in before.keys() | after.keys() | found.keys():
            if found.get(path) not in (before.get(path), after.get(path)):
                raise Fault(f"{difference(after, found)}: {ended}")
        if ended.code == 0 and difference(after, found):
            raise Fault(f"exit code 0, and {difference(after, found)}: {ended}")
        listed = site / "sampled" / "subsets.csv"
        if listed.exists():
            for row in listed.read_text().splitlines()[1:]:
                if f"sampled/{row.split(',')[0]}" not in found:
                    raise Fault(f"listed and not there: {row}: {ended}")
        left = [path for path in snapshot(site) if _LEFT.fullmatch(path)]
        if left and ended.code != -9 and call not in ("unlink", "unlinkat") and ended.injected:
            raise Fault(f"left `{left[0]}`: {ended}")


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of failing writers."""
    return run_rounds("writers", Writers(ground).play, limits)
