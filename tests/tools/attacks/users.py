"""Merges by a user in folders of another, and the modes of all that is written.

Where the system refuses, the message says so and nothing has changed; what is written has the
modes that the umask gives to any new file, whatever private names it had on its way.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.support.settings import DATA
from tests.tools.attacks.children import Ended, preload
from tests.tools.attacks.ground import OUT, Ground
from tests.tools.attacks.judge import Fault, Judge, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import Prepare, Scenario, left, nothing, old

_NOBODY = 65534
_UMASKS = (0o000, 0o002, 0o022, 0o027, 0o077)
_FIT = ("fit", str(DATA / "measured_llama3b_16_experts.csv"), "-o", "fitted/law.json")


class Users:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        ground.folder.chmod(0o755)
        site = ground.site()
        (site / "fitted").mkdir()
        preload(_FIT, site, ground.notes(site))
        ground.leave(site)

    def play(self, chance: Random) -> str:
        """One command by another user, or under some umask."""
        site = self.ground.site()
        play: Callable[[Path, Random], str] = chance.choice((self._denied, self._modes, self._own))
        try:
            return play(site, chance)
        finally:
            self.ground.leave(site)

    def _as_nobody(self, site: Path, words: list[str]) -> Ended:
        return self.ground.run(site, words, first=_become_nobody)

    def _denied(self, site: Path, chance: Random) -> str:
        """The folders are root's."""
        places: dict[str, tuple[Prepare, tuple[str, ...], int]] = {
            "a folder that is not theirs": (nothing, (), 0o755),
            "an output": (old, ("--overwrite",), 0o755),
            "an output in a folder for all": (old, ("--overwrite",), 0o1777),
            "a work folder": (left("journal:4"), ("--resume",), 0o755),
            "a work folder in a folder for all": (left("journal:4"), ("--resume",), 0o1777),
            "a work folder that is discarded": (left("journal:4"), ("--discard",), 0o1777),
        }
        name = chance.choice([*places])
        prepare, words, mode = places[name]
        prepare(self.ground, site)
        site.chmod(mode)
        if prepare is old:
            (site / OUT).chmod(0o755)
        scenario = Scenario(name, prepare, words)
        before = _all(site)
        judge = Judge(self.ground, scenario, site)
        ended = self._as_nobody(site, scenario.command(self.ground))
        try:
            spoke_properly(ended, (1,))
            judge.surroundings()
            now = _all(site)
            if any(now.get(path) != what for path, what in before.items()):
                raise Fault(f"something has changed: {ended}")
        except Fault as fault:
            raise Fault(f"[{name}] {fault}") from fault
        return f"denied: {name}"

    def _own(self, site: Path, chance: Random) -> str:
        """Inputs and folders that a user may use, though they are another's."""
        closed = chance.random() < 0.5
        kind = "a model that may not be read" if closed else "a model of another's"
        models = site / "models"
        text = (site / "ties.yml").read_text()
        if closed:
            (models / "model.safetensors").write_bytes(
                (self.ground.pool.folder / "a" / "model.safetensors").read_bytes()
            )
            (models / "model.safetensors").chmod(0o600)
            (site / "ties.yml").write_text(
                text.replace(str(self.ground.pool.folder / "a"), str(models))
            )
        os.chown(site, _NOBODY, _NOBODY)
        ended = self._as_nobody(site, self.ground.words("ties"))
        try:
            spoke_properly(ended, (1,) if closed else (0,))
            if closed and str(models) not in ended.stderr:
                raise Fault(f"the message does not name the file: {ended}")
            if not closed and not (site / OUT / "config.json").exists():
                raise Fault(f"exit code 0, and the output is not there: {ended}")
        except Fault as fault:
            raise Fault(f"[{kind}] {fault}") from fault
        return f"{kind}: exit code {ended.code}"

    def _modes(self, site: Path, chance: Random) -> str:
        """Everything that is new is as open as the umask says."""
        umask = chance.choice(_UMASKS)
        what = chance.choice(("merge", "merge that is killed", "many", "fit"))
        words = self.ground.words("ties")
        fault = "journal:4:kill" if what.endswith("killed") else ""
        if what == "fit":
            (site / "fitted").mkdir()
            words = [*_FIT]
        elif what == "many":
            words = Scenario("many", nothing, many=True).command(self.ground)
        before = set(site.rglob("*"))
        ended = self.ground.run(
            site, words, first=lambda: os.umask(umask), env={"MERGEPLAN_FAULT": fault}
        )
        spoke_properly(ended, (-9,) if fault else (0,))
        new = sorted(set(site.rglob("*")) - before)
        if not new:
            raise Fault(f"[{what}] nothing was written: {ended}")
        for path in new:
            mode = stat.S_IMODE(path.lstat().st_mode)
            wanted = (0o777 if path.is_dir() else 0o666) & ~umask
            if mode != wanted:
                where = path.relative_to(site)
                raise Fault(f"[{what}, umask {umask:03o}] `{where}` has {mode:o}, not {wanted:o}")
        return f"modes: {what}"


def _all(site: Path) -> dict[str, tuple[int, int, int, int]]:
    """Owner, mode, length and time of everything."""
    found = {}
    for path in site.rglob("*"):
        state = path.lstat()
        found[str(path)] = (state.st_uid, state.st_mode, state.st_size, state.st_mtime_ns)
    return found


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of users."""
    if os.geteuid() != 0:
        return Tally("users", not_run="only root can become another user")
    return run_rounds("users", Users(ground).play, limits)
