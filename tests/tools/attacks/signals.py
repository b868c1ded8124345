"""Merges that are stopped: by signals at random moments, and at random system calls.

After each, the output is absent, as it was, or complete; nothing of the user's is touched; and the
same command with `--resume` makes the bytes of a merge that nobody disturbed.
"""

import signal
import time
from pathlib import Path
from random import Random

from tests.tools.attacks.children import Child, Ended
from tests.tools.attacks.ground import OUT, Ground
from tests.tools.attacks.judge import Fault, Judge, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import SCENARIOS, Scenario, can_mount, undisturbed

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP)
# Calls that change something, at which a kill may leave half a change.
_CALLS = (
    *("openat", "close", "write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync"),
    *("mkdir", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat"),
    *("flock", "chmod", "fchmod", "fchmodat", "getdents64"),
)


class Signals:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.why_no_mounts = can_mount()
        self.scenarios = [one for one in SCENARIOS if not (one.mount and self.why_no_mounts)]

    def play(self, chance: Random) -> str:
        """One merge, stopped, and completed."""
        scenario = chance.choice(self.scenarios)
        number = chance.choice(_SIGNALS)
        site = self.ground.site()
        where = "undisturbed"
        try:
            scenario.prepare(self.ground, site)
            judge = Judge(self.ground, scenario, site)
            ended, where = self._disturbed(chance, scenario, number, site)
            self._judge(judge, ended, number)
            self._complete(scenario, judge, site, ended)
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{scenario.name}, {number.name} at {where}] {fault}") from fault
        finally:
            self.ground.leave(site)
        met = "after its end" if ended.code == 0 and number != signal.SIGSTOP else "met"
        return f"{number.name} {met}"

    def _disturbed(
        self, chance: Random, scenario: Scenario, number: signal.Signals, site: Path
    ) -> tuple[Ended, str]:
        """The command, a signal sent to it, and where that met it."""
        words, notes = scenario.command(self.ground), self.ground.notes(site)
        whole = undisturbed(self.ground, scenario)
        if chance.random() < 0.5:
            call = chance.choice([call for call in _CALLS if call in whole.calls])
            when = chance.randint(1, whole.calls[call])
            inject = f"inject={call}:signal={number.name}:when={when}"
            child = Child(words, site, notes=notes, strace=("-e", f"trace={call}", "-e", inject))
            where = f"call {when} of {call}"
        else:
            child = Child(words, site, notes=notes)
            moment = chance.uniform(0, 1.1 * whole.seconds)
            time.sleep(moment)
            child.send(number)
            where = f"{1000 * moment:.0f} ms"
        if number == signal.SIGSTOP:
            time.sleep(whole.seconds / 2)
            self._against_a_stopped_one(scenario, site)
            child.proceed()
        return child.end(), where

    def _against_a_stopped_one(self, scenario: Scenario, site: Path) -> None:
        """A second run beside one that has been stopped neither breaks in nor breaks anything."""
        ended = self.ground.run(site, [*scenario.command(self.ground), "--resume"])
        spoke_properly(ended, (0, 1, 2))

    def _judge(self, judge: Judge, ended: Ended, number: signal.Signals) -> None:
        stopped = {
            signal.SIGTERM: (0, 143, -signal.SIGTERM),
            signal.SIGINT: (0, 130, -signal.SIGINT),
            signal.SIGKILL: (0, -signal.SIGKILL),
            signal.SIGSTOP: (0, 1),
        }
        spoke_properly(ended, stopped[number])
        judge.surroundings()
        complete = judge.output(killed=ended.code != 0)
        if ended.code == 0:
            judge.success() if number != signal.SIGSTOP else None
            if not complete:
                raise Fault(f"exit code 0, and the output is not there: {ended}")

    def _complete(self, scenario: Scenario, judge: Judge, site: Path, before: Ended) -> None:
        """Going on gives the bytes of an undisturbed merge."""
        ended = self.ground.run(site, scenario.resumed(self.ground))
        if ended.code == 1 and "by another program" in ended.stderr:
            # The run that had its turn while the first was stopped; the message knows the way on.
            words = [word for word in scenario.resumed(self.ground) if word != "--resume"]
            ended = self.ground.run(site, [*words, "--discard"])
        spoke_properly(ended, (0,))
        judge.surroundings()
        if not judge.output():
            raise Fault(f"resumed, and the output is not there: {ended}, after {before}")
        if not scenario.many:
            verified = self.ground.run(site, ["verify", OUT])
            if verified.code != 0:
                raise Fault(str(verified))


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of signals."""
    return run_rounds("signals", Signals(ground).play, limits)
