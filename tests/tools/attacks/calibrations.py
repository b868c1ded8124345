"""Calibrations that are killed, race for one folder, or meet files of the user's in it.

The same command goes on, and ends with the table of a run that nobody disturbed.
"""

import csv
import signal
import time
from pathlib import Path
from random import Random

from tests.support.pools import write_pool
from tests.tools.attacks.children import Child, Ended, preload
from tests.tools.attacks.ground import Ground
from tests.tools.attacks.judge import Fault, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.snapshots import difference, snapshot

_RUN = "run"
_CALLS = ("openat", "write", "fsync", "rename", "unlink", "ftruncate", "flock", "mkdir", "close")
_NAMES = ("measurements.csv", "law.json", "law.png", "merge.yml", "scores.jsonl")
Rows = list[dict[str, str]]


class Calibrations:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        pool = write_pool(ground.folder / "measured")
        limits = ["--k", "1,2,5", "--max-tokens", "400", "--threads", "1", "--quiet"]
        self.words = ["calibrate", str(pool), "-o", _RUN, "--method", "dare", *limits]
        site = ground.site()
        preload(self.words, site, ground.notes(site), every=True)
        self.expected = _rows(site)
        begun = time.monotonic()
        ground.run(ground.site(), self.words)
        self.seconds = time.monotonic() - begun

    def play(self, chance: Random) -> str:
        """One run, disturbed, and completed."""
        site = self.ground.site()
        kind = chance.choice(("signal", "signal", "kill at a call", "race", "files of a user"))
        play = {"race": self._race, "files of a user": self._files}.get(kind, self._stop)
        try:
            what = play(site, chance, kind)
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{kind}] {fault}") from fault
        finally:
            self.ground.leave(site)
        return what

    def _stop(self, site: Path, chance: Random, kind: str) -> str:
        number = chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        for _ in range(chance.choice((1, 2))):
            if kind == "signal":
                child = Child(self.words, site, notes=self.ground.notes(site))
                time.sleep(chance.uniform(0, self.seconds))
                child.send(number)
            else:
                call, when = chance.choice(_CALLS), int(2 ** chance.uniform(0, 6))
                inject = f"inject={call}:signal={number.name}:when={when}"
                strace = ("-e", f"trace={call}", "-e", inject)
                child = Child(self.words, site, notes=self.ground.notes(site), strace=strace)
            spoke_properly(child.end(), (0, -9, 130, 143))
        self._complete(site)
        return f"{kind}: {number.name}"

    def _race(self, site: Path, chance: Random, kind: str) -> str:
        delay = f"inject=unlink,rename,flock,openat:delay_enter={chance.choice((100, 3000))}"
        strace = ("-e", "trace=unlink,rename,flock,openat", "-e", delay)
        children = []
        for _ in range(chance.choice((2, 2, 3))):
            traced = strace if chance.random() < 0.5 else ()
            children.append(Child(self.words, site, notes=self.ground.notes(site), strace=traced))
            time.sleep(chance.choice((0, 0, 0.05, 0.5 * self.seconds)))
        ended = [child.end() for child in children]
        for one in ended:
            spoke_properly(one, (0, 1))
        if all(one.code == 1 for one in ended):
            raise Fault(f"none of them succeeded: {ended[0]}; {ended[1]}")
        self._complete(site)
        return f"race: {sum(one.code == 0 for one in ended)} succeed"

    def _files(self, site: Path, chance: Random, kind: str) -> str:
        """Files of the user's, with our names or others, in a folder that is no run."""
        (site / _RUN).mkdir()
        names = {chance.choice((*_NAMES, "thesis.tex")) for _ in range(2)}
        for name in names:
            (site / _RUN / name).write_text("mine")
        before = snapshot(site)
        ended = self.ground.run(site, self.words)
        ours = names & {*_NAMES}
        spoke_properly(ended, (1,) if ours else (0,))
        now = {name: what for name, what in snapshot(site).items() if name in before}
        if found := difference(before, now):
            raise Fault(f"a file of the user's: {found}: {ended}")
        if ours and not any(name in ended.stderr for name in ours):
            raise Fault(f"the message names none of {sorted(ours)}: {ended}")
        return f"files of a user: exit code {ended.code}"

    def _complete(self, site: Path) -> None:
        ended: Ended = self.ground.run(site, self.words)
        spoke_properly(ended, (0,))
        found = _rows(site)
        if found != self.expected:
            raise Fault(
                f"the table differs: {len(found)} rows, not {len(self.expected)}, or others"
            )


def _rows(site: Path) -> Rows:
    """The table, without what a clock says."""
    with (site / _RUN / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if "seconds" not in name} for row in rows]


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of calibrations."""
    return run_rounds("calibrations", Calibrations(ground).play, limits)
