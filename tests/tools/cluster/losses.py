"""Nodes that are lost in the middle: what is said, how long it takes, what is there in the end."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.nodes import Nodes, nodes
from tests.support.pools import write_pool
from tests.support.runs import contents
from tests.tools.cluster.models import write_calibration, write_merge
from tests.tools.cluster.traffic import COMMAND, merge_words

TENSORS, SIDE = 16, 1536
WIDTH = 768
# Where the driver runs, who is lost, and whether its processes end, its network, or both.
Loss = tuple[int, int, str]
LOSSES: dict[str, Loss] = {
    "a worker's node, its processes": (0, 2, "kill"),
    "a worker's node, its power": (0, 2, "unplug kill"),
    "a worker's node, its cable": (0, 2, "unplug"),
    "the head, its power": (2, 0, "unplug kill"),
    "the driver's node, its power": (2, 2, "unplug kill"),
}


def lose(folder: Path) -> None:
    """Lose each of them, and print what came of it; `--resume` completes what ended."""
    _lose_merges(folder)
    _lose_calibrations(folder)
    lose_tunings(folder)


def _lose_merges(folder: Path) -> None:
    config = write_merge(folder / "models", TENSORS, SIDE, "della")
    words = [*COMMAND, *map(str, merge_words(config, TENSORS, TENSORS, SIDE))]
    _to_the_end(words, folder)
    expected = contents(folder / "out")
    data = folder / "out.partial" / "data"
    for name, loss in LOSSES.items():
        shutil.rmtree(folder / "out")
        with nodes(3) as cluster:
            said = _lost(cluster, words, folder, loss, lambda: len([*data.glob("*")]) >= 3)
            print(f"merge: {name}: {said}", flush=True)
            if not (folder / "out").exists():
                assert '"resumed_blocks": 0' not in _resumed([*words, "--resume"], folder)
        assert contents(folder / "out") == expected
        assert not (folder / "out.partial").exists()


def _lose_calibrations(folder: Path) -> None:
    pool = write_calibration(folder / "pool", WIDTH)
    run = folder / "run"
    words = [*COMMAND, "calibrate", str(pool), "-o", "run", "--method", "dare", "--threads", "1"]
    words += ["--k", "1,2", "--max-tokens", "2000"]
    _to_the_end(words, folder)
    expected = _table(run)
    for name, loss in LOSSES.items():
        shutil.rmtree(run)
        with nodes(3) as cluster:
            said = _lost(cluster, words, folder, loss, lambda: _measured(run) >= 3)
            print(f"calibrate: {name}: {said}", flush=True)
            if _table(run) != expected:
                _resumed(words, folder)  # what a run holds is never measured again
        assert _table(run) == expected


def lose_tunings(folder: Path, losses: Mapping[str, Loss] = LOSSES) -> None:
    """Some of them, in the middle of `tune`."""
    pool = write_pool(folder / "tuned", n_texts=None)
    run = folder / "tuning"
    words = [*COMMAND, "tune", str(pool), "-o", "tuning", "--by", "layer", "--threads", "1"]
    words += ["--max-tokens", "1500"]
    _to_the_end(words, folder)
    expected = _points(run)
    for name, loss in losses.items():
        shutil.rmtree(run)
        with nodes(3) as cluster:
            said = _lost(cluster, words, folder, loss, lambda: len(_points(run)) >= 3)
            print(f"tune: {name}: {said}", flush=True)
            if not (run / "tune.json").exists():
                _resumed(words, folder)
        assert _points(run) == expected


def _points(run: Path) -> list[str]:
    points = run / "points.jsonl"
    whole = points.read_text().rpartition("\n")[0] if points.exists() else ""
    return sorted(json.dumps(json.loads(line) | {"seconds": 0}) for line in whole.splitlines())


def _table(run: Path) -> str:
    table = run / "measurements.csv"
    return table.read_text() if table.exists() else ""


def _measured(run: Path) -> int:
    scores = run / "scores.jsonl"
    return scores.read_text().count("\n") if scores.exists() else 0


def _lost(
    cluster: Nodes, words: list[str], folder: Path, loss: Loss, midway: Callable[[], bool]
) -> str:
    driver, victim, how = loss
    process = cluster.nodes[driver].begin(*words, "--ray", cluster.address, cwd=folder)
    while not midway():
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


def _resumed(words: list[str], folder: Path) -> str:
    begun = time.monotonic()
    said = _to_the_end(words, folder)
    print(f"  resumed on one machine: {time.monotonic() - begun:.1f} s", flush=True)
    return said


def _to_the_end(words: list[str], folder: Path) -> str:
    ended = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True)
    # 4: random experts need not beat their base.
    assert ended.returncode in (0, 4), ended.stderr
    return ended.stdout
