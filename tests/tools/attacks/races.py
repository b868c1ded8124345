"""Merges that race for one output, slowed where it hurts, while the user works in the same folder.

The output is as it was, or complete and that of a merge which said so; and every file that the
user put into it, or into a work folder, is there at the end.
"""

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.tools.attacks.children import Child, Ended
from tests.tools.attacks.ground import OUT, PARTIAL, Ground
from tests.tools.attacks.judge import Fault, Judge, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import Scenario, empty, left, nothing, old
from tests.tools.attacks.snapshots import Snapshot, contents

_SLOWED = (
    "unlink,unlinkat,rmdir",
    "rename,renameat,renameat2",
    "unlink,unlinkat,rmdir,rename,renameat2,mkdir,flock",
    "openat,flock",
    "fsync",
)
_FLAGS = ("--resume", "--discard", "")
_PLACES = {
    "nothing": nothing,
    "empty": empty,
    "old": old,
    "left early": left("layout:1"),
    "left": left("journal:4"),
    "left late": left("index:1"),
}


@dataclass
class User:
    """Somebody who makes folders and files while merges run.

    Attributes:
        files: What was written, by where; it has to stay.
    """

    site: Path
    chance: Random
    busy: bool
    files: dict[Path, str] = field(default_factory=dict)
    made_out: bool = False

    def act(self) -> None:
        """Do something, perhaps, and rest a moment."""
        time.sleep(self.chance.uniform(0, 0.01))
        if not self.busy or self.chance.random() < 0.7:
            return
        kind = self.chance.choice(("make", "out", "out", "partial"))
        try:
            if kind == "make":
                (self.site / OUT).mkdir()
                self.made_out = True
            else:
                folder = self.site / (OUT if kind == "out" else PARTIAL)
                path = folder / f"mine-{len(self.files)}.txt"
                path.write_text(path.name)
                self.files[path] = path.name
        except OSError:
            pass  # there is no such folder now, or there is one already


class Races:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def play(self, chance: Random) -> str:
        """Two or three merges and a user, in one folder."""
        place = chance.choice([*_PLACES])
        recipes = chance.choice((("ties", "ties"), ("ties", "linear"), ("ties", "ties", "linear")))
        site = self.ground.site()
        words: list[list[str]] = []
        try:
            _PLACES[place](self.ground, site)
            judge = Judge(self.ground, Scenario(place, nothing), site)
            before = contents(site / OUT)
            user = User(site, chance, chance.random() < 0.5)
            children = []
            for recipe in recipes:
                flags = (chance.choice(_FLAGS), chance.choice(("--overwrite", "")))
                words.append(self.ground.words(recipe, *filter(None, flags)))
                children.append(self._start(words[-1], site, chance))
                for _ in range(chance.choice((0, 1, 10))):
                    user.act()
            while any(child.poll() is None for child in children):
                user.act()
            ended = [child.end() for child in children]
            judge.surroundings()
            self._judge(site, before, user, recipes, ended)
            self._complete(site, user, words[0])
        except (Fault, TimeoutError) as fault:
            said = "; ".join(" ".join([one[1], *one[7:]]) for one in words)
            raise Fault(f"[{place}: {said}] {fault}") from fault
        finally:
            self.ground.leave(site)
        done = sum(one.code == 0 for one in ended)
        return f"{len(recipes)} merges{' and a user' * user.busy}: {done} succeed"

    def _start(self, words: list[str], site: Path, chance: Random) -> Child:
        calls, delay = chance.choice(_SLOWED), chance.choice((0, 3000, 30000))
        inject = f"inject={calls}:delay_enter={delay}"
        strace = ("-e", f"trace={calls}", "-e", inject) if delay else ()
        return Child(words, site, notes=self.ground.notes(site), strace=strace)

    def _judge(
        self,
        site: Path,
        before: Snapshot | None,
        user: User,
        recipes: tuple[str, ...],
        ended: list[Ended],
    ) -> None:
        for one in ended:
            spoke_properly(one, (0, 1))
        said = "\n    ".join(map(str, ended))
        for path, text in user.files.items():
            if not path.is_file() or path.read_text() != text:
                raise Fault(f"the user's `{path.relative_to(site)}` is gone: {said}")
        found = contents(site / OUT)
        if found is not None:
            found = {name: what for name, what in found.items() if not name.startswith("mine-")}
        successes = {r for r, one in zip(recipes, ended, strict=True) if one.code == 0}
        allowed = [self.ground.expected(recipe) for recipe in recipes if recipe in successes]
        if not successes:
            allowed = [before, *([{}] * user.made_out)]
            # Stopped in cleaning up, or in finding what the user had put there.
            allowed += [self.ground.expected(recipe) for recipe in recipes]
        if found not in allowed:
            names = sorted(found) if found is not None else "nothing"
            raise Fault(f"`{OUT}` holds {names}: {said}")
        # With `--resume` a merge also succeeds that finds itself published already.
        flags = {"--overwrite", "--resume"}
        without = [one for one in ended if one.code == 0 and not flags & {*one.words}]
        if len(without) > 1 and len(successes) > 1:
            raise Fault(f"two merges took one place: {said}")

    def _complete(self, site: Path, user: User, words: list[str]) -> None:
        """A later run goes on, or starts over, as the messages of the others say."""
        if user.files:
            return
        words = [word for word in words if word not in ("--discard", "--resume", "--overwrite")]
        ended = self.ground.run(site, [*words, "--overwrite", "--resume"])
        spoke_properly(ended, (0, 1))
        if ended.code == 1:
            ended = self.ground.run(site, [*words, "--overwrite", "--discard"])
            spoke_properly(ended, (0,))
        if contents(site / OUT) != self.ground.expected("ties"):
            raise Fault(f"a later run ended with 0, and the output is not there: {ended}")
        shutil.rmtree(site / OUT)


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play races."""
    return run_rounds("races", Races(ground).play, limits)
