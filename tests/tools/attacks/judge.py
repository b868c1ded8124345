"""What must hold after a merge, however it ended."""

import stat
from collections.abc import Iterable
from pathlib import Path

from tests.tools.attacks.children import Ended
from tests.tools.attacks.ground import OUT, PARTIAL, Ground
from tests.tools.attacks.scenarios import EMPTY_MODE, OLD_MODE, Scenario
from tests.tools.attacks.snapshots import contents, difference, snapshot

# How the names begin under which work folders are made and removed; a later run sweeps them up.
_PRIVATE = ".mergeplan-"


class Fault(AssertionError):
    """A promise that was not kept."""


class Judge:
    """Looks at a site before a command, and judges it after.

    Attributes:
        litter: Private names that the last command left, beside its work folder.
    """

    def __init__(self, ground: Ground, scenario: Scenario, site: Path) -> None:
        self._scenario, self._site = scenario, site
        self._expected = scenario.expected(ground)
        self._beside = snapshot(site, (OUT, PARTIAL))
        self._outs = {out: contents(site / out) for out in self._expected}
        self.litter: list[str] = []

    def surroundings(self) -> None:
        """Nothing of the user's was touched."""
        now = snapshot(self._site, (OUT, PARTIAL))
        self.litter = sorted(now.keys() - self._beside.keys())
        if strange := [name for name in self.litter if not name.startswith(_PRIVATE)]:
            raise Fault(f"{strange} appeared")
        now = {name: what for name, what in now.items() if name not in self.litter}
        if found := difference(self._beside, now):
            raise Fault(f"a file of the user's: {found}")

    def output(self, *, killed: bool = False) -> bool:
        """Each output is as it was, or complete; returns whether all are complete.

        Args:
            killed: A mount point may then be half written, as long as no loader takes it.
        """
        complete = []
        for out, expected in self._expected.items():
            found, before = contents(self._site / out), self._outs[out]
            if self._scenario.mount and found is not None:  # the work is done inside
                found = {n: w for n, w in found.items() if not n.startswith(".mergeplan")}
            complete.append(found == expected)
            needed = {"config.json", "model.safetensors.index.json"}
            moving = killed and self._scenario.mount and not needed <= (found or {}).keys()
            # An empty folder goes before the output takes its place.
            gone = before == {} and found is None
            if found not in (before, expected) and not moving and not gone:
                to = difference(expected, found or {})
                raise Fault(f"`{out}` is neither as it was, nor complete: {to}")
        return all(complete)

    def success(self) -> None:
        """A command that ended with 0 has made everything, and left nothing else."""
        if not self.output():
            raise Fault("exit code 0, and the output is not there")
        if (self._site / PARTIAL).exists():
            raise Fault(f"exit code 0, and `{PARTIAL}` is there")
        if self.litter:
            raise Fault(f"exit code 0, and {self.litter} stay")
        self._modes()

    def _modes(self) -> None:
        """An output that replaces a folder has the folder's mode."""
        wanted = {"empty": EMPTY_MODE, "overwrite": OLD_MODE}.get(self._scenario.name)
        found = stat.S_IMODE((self._site / OUT).stat().st_mode)
        if wanted is not None and found != wanted:
            raise Fault(f"the mode of `{OUT}` was {wanted:o}, is {found:o}")


def spoke_properly(ended: Ended, codes: Iterable[int], *, mute: bool = False) -> None:
    """A command ended as it may, and said so in one message.

    Args:
        codes: The exit codes that are allowed.
        mute: Whether it could not write what it had to say.
    """
    for word in ("Traceback", "panicked", "fault of mergeplan"):
        if word in ended.stderr:
            raise Fault(f"{word}: {ended}")
    if ended.code not in codes:
        raise Fault(f"exit code {ended.code}, expected one of {list(codes)}: {ended}")
    messages = sum(line.startswith("error: ") for line in ended.stderr.splitlines())
    if ended.code == 1 and messages != 1 and not mute:
        raise Fault(f"{messages} messages: {ended}")
