"""Nodes that are lost in the middle of a merge: what is said, how long it takes, what is there."""

import shutil
import subprocess
import time
from pathlib import Path

from tests.support.nodes import Nodes, nodes
from tests.support.runs import contents
from tests.tools.cluster.models import write_merge
from tests.tools.cluster.traffic import COMMAND, merge_words

TENSORS, SIDE = 16, 1536
# Where the driver runs, who is lost, and whether its processes end, its network, or both.
LOSSES = {
    "a worker's node, its processes": (0, 2, "kill"),
    "a worker's node, its power": (0, 2, "unplug kill"),
    "a worker's node, its cable": (0, 2, "unplug"),
    "the head, its power": (2, 0, "unplug kill"),
    "the driver's node, its power": (2, 2, "unplug kill"),
}


def lose(folder: Path) -> None:
    """Lose each of them, and print what came of it; `--resume` completes what ended."""
    config = write_merge(folder / "models", TENSORS, SIDE, "della")
    words = [*COMMAND, *map(str, merge_words(config, TENSORS, TENSORS, SIDE))]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    expected = contents(folder / "out")
    for name, (driver, victim, how) in LOSSES.items():
        shutil.rmtree(folder / "out")
        with nodes(3) as cluster:
            print(f"{name}: {_lost(cluster, words, folder, driver, victim, how)}", flush=True)
            if not (folder / "out").exists():
                begun = time.monotonic()
                ended = subprocess.run(
                    [*words, "--resume"], cwd=folder, check=True, capture_output=True, text=True
                )
                assert '"resumed_blocks": 0' not in ended.stdout
                print(f"  --resume on one machine: {time.monotonic() - begun:.1f} s")
        assert contents(folder / "out") == expected
        assert not (folder / "out.partial").exists()


def _lost(
    cluster: Nodes, words: list[str], folder: Path, driver: int, victim: int, how: str
) -> str:
    process = cluster.nodes[driver].begin(*words, "--ray", cluster.address, cwd=folder)
    data = folder / "out.partial" / "data"
    while not data.exists() or len(list(data.iterdir())) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    if "unplug" in how:
        cluster.unplug(cluster.nodes[victim])
    if "kill" in how:
        cluster.nodes[victim].kill()
    begun = time.monotonic()
    _, said = process.communicate(timeout=150)
    error = next((line for line in said.splitlines() if line.startswith("error")), "no error")
    return f"exit code {process.returncode} after {time.monotonic() - begun:.1f} s, {error}"
