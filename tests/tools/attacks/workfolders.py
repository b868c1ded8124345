"""Work folders that were damaged, forged or replaced, resumed or discarded.

Allowed is a right output, or a refusal that names what it found; nothing foreign is touched.
"""

import os
from pathlib import Path
from random import Random

from tests.tools.attacks.children import Ended
from tests.tools.attacks.ground import OUT, PARTIAL, Ground
from tests.tools.attacks.judge import Fault, Judge, spoke_properly
from tests.tools.attacks.mutations import mutate, victims
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import Scenario, both, left, nothing, old
from tests.tools.attacks.snapshots import contents

_POINTS = ("begin:1", "layout:1", "journal:1", "journal:4", "sync:2", "companions:1", "index:1")
_FLAGS = ((), ("--resume",), ("--resume",), ("--discard",))


class WorkFolders:
    """One ground, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def play(self, chance: Random) -> str:
        """A damaged work folder, or inputs that are other files now."""
        return self._inputs(chance) if chance.random() < 0.15 else self._folder(chance)

    def _inputs(self, chance: Random) -> str:
        """An input is written again, with the same bytes or others, between a stop and a resume."""
        kind = chance.choice(("touched", "restored", "changed"))
        model = self.ground.pool.folder / chance.choice("abc") / "model.safetensors"
        kept, times = model.read_bytes(), model.stat()
        site = self.ground.site()
        point = chance.choice(_POINTS)
        try:
            left(point)(self.ground, site)
            data = bytearray(kept)
            if kind == "changed":
                data[-chance.randint(1, 100_000)] ^= 1
            other = model.with_name("other")
            other.write_bytes(data)
            other.replace(model)
            if kind != "touched":  # as `cp --archive` or a backup do it
                os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
            ended = self.ground.run(site, self.ground.words("ties", "--resume"))
            spoke_properly(ended, (0, 1) if kind == "changed" else (0,))
            found, fresh = contents(site / OUT), self.ground.site()
            expected = contents(fresh / OUT)
            if ended.code == 0:
                undisturbed = self.ground.run(fresh, self.ground.words("ties"))
                assert undisturbed.code == 0, undisturbed
                expected = contents(fresh / OUT)
            if found != expected:
                raise Fault(f"the output is {'that of no' if found else 'not that of the'} input")
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{point}, --resume; input {kind}] {fault}") from fault
        finally:
            self.ground.leave(site)
            model.write_bytes(kept)
            os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
        return f"input {kind}: exit code {ended.code}"

    def _folder(self, chance: Random) -> str:
        before = chance.choice((nothing, nothing, old))
        words = (*chance.choice(_FLAGS), *(("--overwrite",) if before is old else ()))
        point = chance.choice(_POINTS)
        scenario = Scenario(point, both(left(point), before), words)
        site = self.ground.site()
        done: list[str] = []
        try:
            scenario.prepare(self.ground, site)
            victims(site)
            done = mutate(site, chance)
            foreign = _foreign(site)
            judge = Judge(self.ground, scenario, site)
            ended = self.ground.run(site, scenario.command(self.ground))
            spoke_properly(ended, (0, 1))
            judge.surroundings()
            complete = judge.output()
            _keeps(foreign, site, ended)
            if ended.code == 0 and not complete:
                raise Fault(f"exit code 0, and the output is not there: {ended}")
            if ended.code == 1:
                _named(ended)
        except (Fault, TimeoutError) as fault:
            what = f"{point}, {' '.join(words)}; {', '.join(done)}"
            raise Fault(f"[{what}] {fault}") from fault
        finally:
            self.ground.leave(site)
        how = words[0] if words and words[0] != "--overwrite" else "neither flag"
        return f"{how}: exit code {ended.code}"


def _foreign(site: Path) -> dict[Path, str]:
    """Files of the user's in the work folder, or in its place."""
    folder = site / PARTIAL
    if folder.is_symlink() or not folder.exists():
        return {}
    if folder.is_file():
        return {folder: folder.read_text()}
    return {path: path.read_text() for path in folder.rglob("thesis.tex")}


def _keeps(foreign: dict[Path, str], site: Path, ended: Ended) -> None:
    for path, text in foreign.items():
        if not path.is_file() or path.read_text() != text:
            raise Fault(f"`{path.relative_to(site)}` is gone: {ended}")


def _named(ended: Ended) -> None:
    """A refusal says what it is about."""
    if PARTIAL not in ended.stderr and OUT not in ended.stderr:
        raise Fault(f"the message names nothing: {ended}")


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds of damaged work folders."""
    return run_rounds("workfolders", WorkFolders(ground).play, limits)
