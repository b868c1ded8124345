"""What crosses the network, and what a task costs."""

import csv
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.nodes import Node, Nodes, nodes
from tests.support.runs import contents
from tests.tools.cluster.models import write_calibration, write_merge

COMMAND = (sys.executable, "-m", "mergeplan")
# Tensors, their side, shards: each row but the first has one of them larger.
LAYOUTS = ((24, 512, 6), (24, 1024, 6), (960, 80, 6), (24, 512, 24), (960, 80, 24))
WIDTHS = (48, 192)


@dataclass(frozen=True)
class Crossed:
    """One command on the cluster.

    Attributes:
        sent: Bytes that all nodes put on the wire, without those of as long a silence.
        seconds: Of the whole command.
        said: What it printed.
    """

    sent: float
    seconds: float
    said: str


def idle_rate(cluster: Nodes, seconds: float) -> float:
    """Bytes a second that all nodes send while nothing is asked of them."""
    before = sum(cluster.bytes_sent())
    time.sleep(seconds)
    return (sum(cluster.bytes_sent()) - before) / seconds


def crossed(cluster: Nodes, node: Node, idle: float, *words: object, cwd: Path) -> Crossed:
    """Run a command of ours to its end, which has to be a good one."""
    before, begun = sum(cluster.bytes_sent()), time.monotonic()
    done = node.run(*COMMAND, *words, cwd=cwd)
    seconds = time.monotonic() - begun
    # 4: random experts do not beat their base.
    assert done.returncode in (0, 4), done.stdout + done.stderr
    sent = sum(cluster.bytes_sent()) - before - idle * seconds
    return Crossed(sent, seconds, done.stdout)


def merge_words(config: Path, shards: int, tensors: int, side: int) -> list[object]:
    """A merge whose output has so many shards."""
    shard_bytes = -(-tensors // shards) * side * side * 2 + 1000
    return ["merge", config, "out", "--threads", 1, "--out-shard-size", shard_bytes, "--json"]


def measure(folder: Path) -> None:
    """Print the table; on the way every output is compared with that of one machine."""
    with nodes(3) as cluster:
        time.sleep(5)
        idle = idle_rate(cluster, 10)
        print(f"idle: {idle / 1e3:.2f} kB/s from all three nodes")
        driver = cluster.nodes[2]
        for tensors, side, shards in LAYOUTS:
            place = folder / f"{tensors}-{side}"
            if not place.exists():
                write_merge(place, tensors, side)
            words = merge_words(place / "merge.yml", shards, tensors, side)
            crossed(cluster, driver, idle, *words, cwd=folder)
            alone = taken(folder / "out")
            found = crossed(cluster, driver, idle, *words, "--ray", cluster.address, cwd=folder)
            assert taken(folder / "out") == alone
            merging = json.loads(found.said)["phases"]["merge"]
            print(
                f"merge: {tensors} tensors of {side}², {shards} shards: {found.sent / 1e3:.0f} kB,"
                f" {merging:.2f} s merging, {found.seconds:.2f} s in all; the same files"
            )
        for width in WIDTHS:
            pool = write_calibration(folder / f"width{width}", width)
            for ks in ("1", "1,2"):
                words = ["calibrate", pool, "-o", "run", "--method", "dare", "--k", ks]
                words += ["--max-tokens", 200, "--threads", 1, "--quiet"]
                found = crossed(cluster, driver, idle, *words, "--ray", cluster.address, cwd=folder)
                with (folder / "run" / "measurements.csv").open(newline="") as file:
                    merges = len({row["subset"] + row["options"] for row in csv.DictReader(file)})
                shutil.rmtree(folder / "run")
                print(
                    f"calibrate: width {width}, {merges} merges: {found.sent / 1e3:.0f} kB,"
                    f" {found.seconds:.2f} s in all"
                )


def taken(out: Path) -> dict[str, str]:
    """Digests of an output's files; it is gone then."""
    found = contents(out)
    shutil.rmtree(out)
    return found
