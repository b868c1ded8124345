"""Wherever a merge fails or is killed, its output is absent or complete, and resuming completes it.

`MERGEPLAN_FAULT` (rust/core/src/fault.rs) kills the process, or fails a step, at a given point.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter

import pytest

from mergeplan.system.private import private_name
from tests.support.runs import (
    RECIPES,
    RECORD_BYTES,
    contents,
    end,
    run,
    start,
    start_halted,
    succeed,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes")

POINTS = (
    "begin",
    "layout",
    "read",
    "statistics",
    "apply",
    "write",
    "journal",
    "sync",
    "companions",
    "index",
    "publish",
    "published",
)
SHARES = [(i + 0.5) / 10 for i in range(10)]


def options(pool):
    """Shards, so that there are several files; one thread, so that a merge takes its time."""
    return ("--out-shard-size", pool.shard_bytes, "--threads", 1)


def recipe_of(point: str, turn: int) -> str:
    """The recipes take turns; a linear merge has no statistics."""
    names = [name for name in RECIPES if name != "linear" or point not in ("statistics", "apply")]
    return names[turn % len(names)]


def journalled(cwd) -> int:
    """Blocks in the journal; some may be there twice, since whole segments are done again."""
    journal = cwd / "out.partial" / "journal"
    if not journal.exists():
        return 0
    records = journal.read_bytes()
    whole = len(records) - len(records) % RECORD_BYTES
    return len({records[at : at + 8] for at in range(0, whole, RECORD_BYTES)})


def check_stopped(cwd, point: str, expected: dict[str, str]) -> None:
    """After a fault the output is absent, or complete."""
    assert (cwd / "out").exists() == (point == "published")
    if point == "published":
        assert contents(cwd / "out") == expected


def check_resumed(cwd, arguments, expected: dict[str, str], blocks: int) -> None:
    published = (cwd / "out").exists()
    report = succeed(cwd, *arguments, "--resume")
    assert contents(cwd / "out") == expected
    # What was published already is not looked at again.
    assert report["resumed_blocks"] == (0 if published else blocks)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_then_an_error_while_resuming_then_the_same_bytes(point, small, tmp_path):
    recipe = recipe_of(point, POINTS.index(point))
    arguments = options(small.pool)
    expected, _ = small(recipe, *arguments)
    count = small.pool.points(recipe)[point]
    cwd = small.place(tmp_path / "w", recipe)
    killed = run(cwd, *arguments, fault=f"{point}:{(count + 1) // 2}:kill")
    assert killed.code == -signal.SIGKILL
    check_stopped(cwd, point, expected)
    before = journalled(cwd)
    failed = run(cwd, *arguments, "--resume", fault=f"{point}:1:error")
    # What was written or published needs no second time.
    if failed.code == 0:
        assert point in ("published", "layout")
        assert contents(cwd / "out") == expected
        return
    assert failed.code == 1
    assert "MERGEPLAN_FAULT" in failed.stderr
    check_stopped(cwd, point, expected)
    assert journalled(cwd) >= before
    if journalled(cwd):
        assert "--resume` goes on" in failed.stderr
    elif point != "read":  # the first read is a header's, before anything is begun
        assert not (cwd / "out.partial").exists()
    check_resumed(cwd, arguments, expected, journalled(cwd))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["kill", "error"])
def test_every_phase_of_merges_that_take_seconds(mode, large, tmp_path):
    """Every point ten times, spread over the run; every recipe at every point."""
    arguments = options(large.pool)
    reached = Counter()
    for point in POINTS:
        for turn, share in enumerate(SHARES if mode == "kill" else SHARES[::3]):
            recipe = recipe_of(point, turn)
            expected, _ = large(recipe, *arguments)
            number = 1 + int(large.pool.points(recipe)[point] * share)
            cwd = large.place(tmp_path / f"{point}-{turn}", recipe)
            ended = run(cwd, *arguments, fault=f"{point}:{number}:{mode}")
            assert ended.code == (1 if mode == "error" else -signal.SIGKILL), (point, ended)
            reached[point] += 1
            check_stopped(cwd, point, expected)
            check_resumed(cwd, arguments, expected, journalled(cwd))
            shutil.rmtree(cwd)
    seconds = {recipe: round(large(recipe, *arguments)[1]["seconds"], 1) for recipe in RECIPES}
    print(f"\n{mode}: {dict(reached)}; undisturbed {seconds} s", file=sys.stderr)


@pytest.mark.timeout(3600)
def test_kills_from_outside_at_any_time(full, request, tmp_path):
    """Kill, resume, kill the resumed run, resume."""
    models = request.getfixturevalue("large" if full else "small")
    arguments = options(models.pool)
    chance = random.Random(3)
    blocks = []
    for turn in range(10 if full else 2):
        recipe = recipe_of("", turn)
        expected, report = models(recipe, *arguments)
        cwd = models.place(tmp_path / str(turn), recipe)
        for more in ([], ["--resume"]):
            process = start(cwd, *arguments, *more)
            time.sleep(chance.uniform(0.1, 0.2 + report["seconds"]))
            process.kill()
            ended = end(process)
            assert ended.code in (0, -signal.SIGKILL), ended.stderr
            if (cwd / "out").exists():
                assert contents(cwd / "out") == expected
        blocks.append(journalled(cwd))
        check_resumed(cwd, arguments, expected, journalled(cwd))
        shutil.rmtree(cwd)
    print(f"\nblocks left by kills from outside: {blocks} of {models.pool.blocks}", file=sys.stderr)


def test_a_resumed_run_is_killed_again_and_again(small, tmp_path):
    arguments = options(small.pool)
    expected, _ = small("ties", *arguments)
    cwd = small.place(tmp_path / "w", "ties")
    for turn in range(3):
        more = ["--resume"] if turn else []
        # Four blocks are a tensor; the fifth is written but does not reach the journal.
        ended = run(cwd, *arguments, *more, fault="journal:5:kill")
        assert ended.code == -signal.SIGKILL
        assert not (cwd / "out").exists()
        assert journalled(cwd) == 4 * (turn + 1)
    check_resumed(cwd, arguments, expected, 12)


@pytest.mark.parametrize("point", ["publish", "published"])
def test_a_kill_while_an_output_is_replaced(point, small, tmp_path):
    expected, _ = small("linear")
    cwd = small.place(tmp_path / "w", "linear")
    (cwd / "out").mkdir()
    (cwd / "out" / "model.bin").write_bytes(b"PK\x03\x04old")
    ended = run(cwd, "--overwrite", fault=f"{point}:1:kill")
    assert ended.code == -signal.SIGKILL
    found = contents(cwd / "out")
    assert found == expected if point == "published" else list(found) == ["model.bin"]
    more = [] if point == "published" else ["--overwrite"]
    succeed(cwd, *more, "--resume")
    assert contents(cwd / "out") == expected


def test_what_an_earlier_run_put_beside_the_weights_does_not_stay(small, tmp_path):
    bare = ("--no-copy-tokenizer", "--no-write-model-card")
    expected, _ = small("linear", *bare)
    cwd = small.place(tmp_path / "w", "linear")
    assert run(cwd, fault="publish:1:kill").code == -signal.SIGKILL
    (cwd / "out.partial" / "data" / private_name()).write_text("cut sho")
    succeed(cwd, *bare, "--resume")
    assert contents(cwd / "out") == expected


def test_two_runs_do_not_work_in_one_place(long_merge):
    # Stopped, it holds its place for as long as the test likes.
    first = start_halted(long_merge, "--threads", 1, at="journal:2")
    for more in ([], ["--resume"], ["--discard"]):
        second = run(long_merge, "--threads", 1, *more)
        assert second.code == 1
        assert "another merge is working" in second.stderr
        assert "goes on" not in second.stderr
    first.send_signal(signal.SIGCONT)
    assert end(first).code == 0
    assert not (long_merge / "out.partial").exists()
