"""Merges onto a disk that fails or whose machine loses its power, and from one that fails.

What a merge said was done is there after the power came back; else the output is absent, or as it
was, and `--resume` completes it when the disk is whole again.
"""

import os
import shutil
import signal
import time
from pathlib import Path
from random import Random

from tests.tools.attacks.children import Child, Ended
from tests.tools.attacks.failing_disk import FailingDisk, why_not
from tests.tools.attacks.ground import Ground
from tests.tools.attacks.judge import Fault, Judge, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import SCENARIOS, Scenario, undisturbed

_SCENARIOS = [one for one in SCENARIOS if not one.mount]


class Disks:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def play(self, chance: Random) -> str:
        """One merge with a failing disk, and its completion on a whole one."""
        kind = chance.choice(("writes fail", "power cut", "killed, power cut", "reads fail"))
        scenario = chance.choice(_SCENARIOS)
        site = self.ground.site()
        disk = FailingDisk(site.parent)
        try:
            if kind == "reads fail":
                return self._unreadable(disk, site)
            place = shutil.copytree(site, disk.mount_point / "site", symlinks=True)
            scenario.prepare(self.ground, place)
            os.sync()  # the state before is the user's, and was there for long
            judge = Judge(self.ground, scenario, place)
            ended = self._merge(kind, scenario, place, site, disk, chance)
            self._judge(judge, ended)
            words = scenario.resumed(self.ground)
            again = self.ground.run(place, words, notes=site.parent / "again")
            if kind == "writes fail" and again.code == 1 and "--discard" in again.stderr:
                # What a run left on the disk is damaged, and the message knows a way out.
                words = [*scenario.command(self.ground), "--discard"]
                words = [word for word in words if word != "--resume"]
                again = self.ground.run(place, words, notes=site.parent / "anew")
            spoke_properly(again, (0,))
            judge.surroundings()
            if not judge.output():
                raise Fault(f"resumed, and the output is not there: {again}, after {ended}")
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{scenario.name}, {kind}] {fault}") from fault
        finally:
            disk.remove()
            self.ground.leave(site)
        return f"{kind}: exit code {ended.code}"

    def _merge(
        self,
        kind: str,
        scenario: Scenario,
        place: Path,
        site: Path,
        disk: FailingDisk,
        chance: Random,
    ) -> Ended:
        if kind == "writes fail":
            disk.leave_room(int(2 ** chance.uniform(12, 21)))
        child = Child(scenario.command(self.ground), place, notes=site.parent / "notes")
        if kind.startswith("killed"):
            time.sleep(chance.uniform(0, 1.1 * undisturbed(self.ground, scenario).seconds))
            child.send(signal.SIGKILL)
        ended = child.end()
        if kind == "writes fail":
            disk.repair()
        else:
            disk.cut_power()
        return ended

    def _judge(self, judge: Judge, ended: Ended) -> None:
        spoke_properly(ended, (0, 1, -9))
        judge.surroundings()
        if not judge.output() and ended.code == 0:
            raise Fault(f"exit code 0, and the output is not on the disk: {ended}")

    def _unreadable(self, disk: FailingDisk, site: Path) -> str:
        """The models lie on a disk of which a part cannot be read."""
        models = shutil.copytree(self.ground.pool.folder, disk.mount_point / "pool")
        text = (site / "ties.yml").read_text()
        (site / "ties.yml").write_text(text.replace(str(self.ground.pool.folder), str(models)))
        disk.lose_half()
        ended = self.ground.run(site, self.ground.words("ties"))
        spoke_properly(ended, (0, 1))
        if ended.code == 1 and not any(w in ended.stderr for w in (str(models), "cannot be read")):
            raise Fault(f"the message does not name what is at fault: {ended}")
        return f"reads fail: exit code {ended.code}"


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of failing disks."""
    if why := why_not(ground.folder):
        return Tally("disks", not_run=why)
    return run_rounds("disks", Disks(ground).play, limits)
