"""`merge --ray` and `calibrate --ray` on a real cluster, whose workers, driver and disk fail.

Each output is absent or complete, and a later run ends with the bytes, or the table, of a run
without a cluster. Processes that end here are those of the cluster that a run started.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.support.pools import write_pool
from tests.tools.attacks.children import Ended
from tests.tools.attacks.ground import OUT, PARTIAL, Ground
from tests.tools.attacks.judge import Fault, spoke_properly
from tests.tools.attacks.rounds import Limits, Tally, run_rounds
from tests.tools.attacks.scenarios import can_mount
from tests.tools.attacks.snapshots import contents

_KINDS = ("merge, worker", "merge, driver", "merge, disk", "calibrate, worker", "calibrate, driver")
_SLOWEST = 240.0
_OURS = (b"ray::merge_shard", b"ray::_RemoteWorker")
_AGAIN = ("another worker is working", "another merge is working", "another calibration")


def _descendants(pid: int) -> dict[int, bytes]:
    """All processes below one, and their titles."""
    children: dict[int, list[int]] = {}
    titles = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end meanwhile
            stat = (path / "stat").read_text().rsplit(")", 1)[1].split()
            titles[int(path.name)] = (path / "cmdline").read_bytes()
            children.setdefault(int(stat[1]), []).append(int(path.name))
    found, left = {}, [pid]
    while left:
        for child in children.get(left.pop(), []):
            found[child] = titles[child]
            left.append(child)
    return found


class Clusters:
    """One ground with a cluster, and the rounds on it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.merge = ground.words("ties")
        pool = write_pool(ground.folder / "measured")
        limits = ["--k", "1,2,5", "--max-tokens", "400", "--threads", "1", "--quiet"]
        self.calibrate = ["calibrate", str(pool), "-o", OUT, "--method", "dare", *limits]
        self.ray = ["--ray", "local"]
        self._takes: dict[str, float] = {}
        self._table: list[dict[str, str]] = []

    def play(self, chance: Random) -> str:
        """One run on the cluster, disturbed, and completed."""
        kinds = [one for one in _KINDS if not ("disk" in one and can_mount())]
        kind = chance.choice(kinds)
        site = self.ground.site()
        try:
            words = self.merge if kind.startswith("merge") else self.calibrate
            if kind.endswith("disk"):
                ended = self._on_a_full_disk(site, chance)
            else:
                ended = self._disturbed(words, kind, site, chance)
            spoke_properly(ended, (0, 1, -9, 130, 143))
            self._judge(kind, site, ended)
            self._complete(kind, words, site, chance)
        except (Fault, TimeoutError) as fault:
            raise Fault(f"[{kind}] {fault}") from fault
        finally:
            if os.path.ismount(site):
                subprocess.run(["umount", "--lazy", site], check=True)
            self.ground.leave(site)
        return f"{kind}: exit code {ended.code}"

    def _disturbed(self, words: list[str], kind: str, site: Path, chance: Random) -> Ended:
        takes = self._duration(words)
        process = _begin([*words, *self.ray], site)
        for _ in range(chance.choice((1, 2))):
            time.sleep(chance.uniform(0.2, 1) * takes / 2)
            if kind.endswith("driver"):
                _stop_driver(process, chance.choice((signal.SIGKILL, signal.SIGTERM)))
                break
            titles = _descendants(process.pid)
            workers = [pid for pid, title in titles.items() if title.startswith(_OURS)]
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
        return _end(process, words)

    def _on_a_full_disk(self, site: Path, chance: Random) -> Ended:
        """All nodes write to one disk, which is full at some moment, and has room again."""
        files = {path.name: path.read_bytes() for path in site.iterdir() if path.is_file()}
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", site], check=True)
        for name, content in files.items():
            (site / name).write_bytes(content)
        process = _begin([*self.merge, *self.ray], site)
        while process.poll() is None and not (site / PARTIAL / "data").exists():
            time.sleep(0.02)
        used = int(subprocess.check_output(["df", "-k", "--output=used", site]).split()[-1])
        size = used + chance.randrange(0, 500)
        subprocess.run(["mount", "-o", f"remount,size={max(size, 4)}k", site], check=False)
        ended = _end(process, self.merge)
        subprocess.run(["mount", "-o", "remount,size=100m", site], check=True)
        return ended

    def _judge(self, kind: str, site: Path, ended: Ended) -> None:
        if not kind.startswith("merge"):
            return
        found = contents(site / OUT)
        if found not in (None, self.ground.expected("ties")):
            raise Fault(f"`{OUT}` is there and not complete: {ended}")
        if ended.code == 0 and found is None:
            raise Fault(f"exit code 0, and the output is not there: {ended}")

    def _complete(self, kind: str, words: list[str], site: Path, chance: Random) -> None:
        """On the cluster or without it; what a lost driver's workers still do is waited for."""
        words = [*words, *(["--resume"] if kind.startswith("merge") else [])]
        words += self.ray if chance.random() < 0.5 else []
        deadline = time.monotonic() + 120
        while True:
            ended = _end(_begin(words, site), words)
            busy = ended.code == 1 and any(word in ended.stderr for word in _AGAIN)
            if not busy or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        spoke_properly(ended, (0,))
        if kind.startswith("merge"):
            if contents(site / OUT) != self.ground.expected("ties"):
                raise Fault(f"the output is not that of a run without a cluster: {ended}")
            return
        if not self._table:
            alone = self.ground.site()
            undisturbed = _end(_begin(self.calibrate, alone), self.calibrate)
            assert undisturbed.code == 0, undisturbed
            self._table = _table(alone)
        _same(_table(site), self._table)

    def _duration(self, words: list[str]) -> float:
        if words[0] not in self._takes:
            site = self.ground.site()
            begun = time.monotonic()
            ended = _end(_begin([*words, *self.ray], site), words)
            assert ended.code == 0, ended
            self._takes[words[0]] = time.monotonic() - begun
            self.ground.leave(site)
        return self._takes[words[0]]


def _stop_driver(process: "subprocess.Popen[str]", number: int) -> None:
    """Stop it; its cluster ends with it, or is ended here."""
    cluster = _descendants(process.pid)
    if process.poll() is None:
        process.send_signal(number)
    process.wait()
    time.sleep(3)
    for pid, title in cluster.items():
        path = Path(f"/proc/{pid}/cmdline")
        if path.exists() and path.read_bytes() == title:
            os.kill(pid, signal.SIGKILL)


def _begin(words: list[str], site: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "mergeplan", *words],
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(process: "subprocess.Popen[str]", words: list[str]) -> Ended:
    try:
        stdout, stderr = process.communicate(timeout=_SLOWEST)
    except subprocess.TimeoutExpired as expired:
        process.kill()
        raise TimeoutError(f"`mergeplan {' '.join(words)}` took {_SLOWEST:.0f} s") from expired
    return Ended(tuple(words), process.returncode, stdout, stderr)


def _table(site: Path) -> list[dict[str, str]]:
    with (site / OUT / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _same(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """Losses agree to a millionth: threads sum in orders of their own. All else is equal."""
    if len(found) != len(expected):
        raise Fault(f"the table has {len(found)} rows, not {len(expected)}")
    for row, other in zip(found, expected, strict=True):
        for name, value in row.items():
            close = name.startswith("loss") and abs(float(value) - float(other[name])) < 1e-6
            if not close and value != other[name] and "seconds" not in name:
                raise Fault(f"column `{name}` has {value}, not {other[name]}")


def attack(ground: Ground, limits: Limits) -> Tally:
    """Play rounds on a cluster."""
    return run_rounds("clusters", Clusters(ground).play, limits)
