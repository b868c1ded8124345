"""Merges that are refused, or stop."""

import shutil
from collections import namedtuple

from mergeplan.system.files import lock
from tests.support import runs
from tests.support.commands import Done
from tests.support.troubles.bench import CONFIG, Bench, produces


@produces("the memory limit is too low: expected N MB or more with N threads, found N MB")
def little_memory(bench: Bench) -> Done:
    return bench.merge("--memory-limit", "1MB", "--threads", 2)


@produces("no space for the output: expected … free at `FOLDER`, found …")
def little_space(bench: Bench) -> Done:
    usage = namedtuple("usage", "total used free")
    bench.patch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 999_000, 1000))
    return bench.merge()


@produces("output `FOLDER` is not empty")
def something_there(bench: Bench) -> Done:
    assert bench.merge().returncode == 0
    return bench.merge()


@produces("output `FOLDER` holds `FILE`, which is no part of a model that mergeplan knows")
def something_of_the_users(bench: Bench) -> Done:
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "thesis.tex").touch()
    return bench.merge("--overwrite")


@produces("output `FOLDER` lies inside input `FOLDER`")
def onto_an_input(bench: Bench) -> Done:
    return bench.run("merge", "c.yml", "b/merged")


@produces("an earlier run left `FOLDER`")
def killed(bench: Bench) -> Done:
    runs.run(bench.folder, fault="journal:5:kill")
    return bench.merge()


@produces("cannot resume: `KEY` has changed since `FOLDER` was begun: expected …, found …")
def changed(bench: Bench) -> Done:
    runs.run(bench.folder, fault="journal:5:kill")
    return bench.merge("--resume", text=CONFIG.replace("0.5", "0.6"))


@produces("another merge is working in `FOLDER`")
def twice(bench: Bench) -> Done:
    runs.run(bench.folder, fault="journal:5:kill")
    with lock(bench.folder / "out.partial"):
        return bench.merge("--resume")


@produces("stopped")
def interrupted(bench: Bench) -> Done:
    process = runs.start_halted(bench.folder, at="journal:5")
    process.send_signal(runs.signal.SIGINT)
    process.send_signal(runs.signal.SIGCONT)
    ended = runs.end(process)
    return Done([], ended.code, ended.stdout, ended.stderr)


@produces("`FILE` changed during the merge: expected …, found …")
def another_file(bench: Bench) -> Done:
    process = runs.start_halted(bench.folder, "--threads", 1, at="journal:2")
    bench.weights.touch()
    process.send_signal(runs.signal.SIGCONT)
    ended = runs.end(process)
    return Done([], ended.code, ended.stdout, ended.stderr)
