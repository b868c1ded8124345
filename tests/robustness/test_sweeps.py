"""Many merges of large layouts: within the memory limit, with few files open, stopped, resumed."""

import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest

from mergeplan.errors import InputError
from mergeplan.merging import preflight, turns
from mergeplan.merging.merge import merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.workspace import Workspace
from mergeplan.planning.plan import MergePlan
from mergeplan.pool.pool import load_pool
from mergeplan.pool.subsets import subset_merge, write_subsets
from mergeplan.system.private import is_private
from tests.support.commands import COMMAND, cli_process
from tests.support.runs import contents

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(300),
]
MIB = 1 << 20
NAMES = ("a", "b", "c", "d")
# Long names make plans large that are made in a moment: eight merges of so few tensors take 60 MB.
MLP = "mlp" * 700


def write_model(folder: Path, tensors: int, seed: int, mlp: str = "mlp") -> None:
    """A checkpoint of many small tensors."""
    folder.mkdir()
    head = {
        f"model.layers.{i // 100}.{mlp}.experts.{i % 100}.up_proj.weight": {
            "dtype": "BF16",
            "shape": [4, 4],
            "data_offsets": [32 * i, 32 * i + 32],
        }
        for i in range(tensors)
    }
    text = json.dumps(head).encode()
    words = (0x3C00 + (7 * i + 13 * seed * i) % 251 for i in range(16 * tensors))
    values = struct.pack(f"<{16 * tensors}H", *words)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values)
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))


def make_sweep(folder: Path, tensors: int, merges: int, mlp: str = "mlp") -> Path:
    """`subsets.csv` of so many merges by two methods."""
    for seed, name in enumerate(("base", *NAMES)):
        write_model(folder / name, tensors, seed, mlp)
    experts = {name: str(folder / name) for name in NAMES}
    size = {"base": str(folder / "base"), "experts": experts}
    methods = {"ties": {"density": 0.5}, "dare": {"density": 0.5}}
    (folder / "pool.yml").write_text(json.dumps({"sizes": [size], "methods": methods}))
    pool = load_pool(folder / "pool.yml")
    subsets = [s for k in range(1, len(NAMES) + 1) for s in combinations(NAMES, k)]
    some = [subset_merge(pool, 0, label, s, seed=7) for s in subsets for label in methods]
    write_subsets(folder / "subsets.csv", some[:merges], pool)
    return folder / "subsets.csv"


@dataclass(frozen=True)
class Large:
    """Merges that take more memory together than they may.

    Attributes:
        limit: The least that is said to be enough.
    """

    folder: Path
    limit: int

    def start(self, *args: object, limit: int | None = None) -> subprocess.Popen[str]:
        return start(self.folder, "--memory-limit", limit or self.limit, *args)

    def whole(self) -> dict[str, str]:
        return contents(self.folder / "whole")


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Large:
    """Eight merges, and what they give."""
    folder = tmp_path_factory.mktemp("large")
    make_sweep(folder, 400, 8, MLP)
    words = ("merge", "--many", "subsets.csv", "whole", "--threads", "2", "--json")
    run = cli_process(*words, "--memory-limit", "5MB", cwd=folder)
    assert run.returncode == 1
    assert not (folder / "whole").exists()
    told = re.search(r"expected (\d+) MB or more with 2 threads, found 5 MB", run.stderr)
    limit = int(told[1]) * 1_000_000
    run = cli_process(*words, "--memory-limit", "1GB", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["merges"][0]["peak_anonymous_bytes"] > limit * 1.3
    return Large(folder, limit)


def start(folder: Path, *args: object) -> subprocess.Popen[str]:
    words = ["merge", "--many", "subsets.csv", "out", "--threads", "2", "--json", *map(str, args)]
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env={**os.environ, "MERGEPLAN_FAULT": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def end(process: subprocess.Popen[str]) -> tuple[list[dict], int]:
    """The reports, and the most anonymous memory that was seen from outside."""
    status, most = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        try:
            found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        except OSError:
            break
        most = max(most, int(found[1]) << 10 if found else 0)
        time.sleep(0.005)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return json.loads(out)["merges"], most


def clear(folder: Path) -> None:
    subprocess.run(["rm", "-rf", *folder.glob("out*")], check=True)


def test_the_least_memory_that_is_told_is_enough_for_more_than_it_holds_at_once(large):
    reports, most = end(large.start())
    assert most <= large.limit
    assert len(reports) == 8
    assert {report["memory_limit_bytes"] for report in reports} == {large.limit}
    assert max(report["peak_anonymous_bytes"] for report in reports) <= large.limit
    assert contents(large.folder / "out") == large.whole()
    clear(large.folder)


def test_a_sweep_that_is_stopped_between_its_turns_goes_on(large):
    out = large.folder / "out"
    limit = large.limit + 4 * MIB  # manifests with long names, to be read again
    resumed: tuple[str, ...] = ()
    for how in (signal.SIGTERM, signal.SIGKILL):
        before = published(out)
        process = large.start(*resumed, limit=limit)
        deadline = time.monotonic() + 60
        # Some are published, and the next are at work.
        while published(out) <= before or not any(
            (path / "journal").exists() for path in out.glob("*.partial")
        ):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode != 0
        assert published(out) < 8
        # What it was removing when it was killed is swept up once it is a minute old.
        for path in filter(lambda path: is_private(path.name), out.iterdir()):
            os.utime(path, (0, 0))
        resumed = ("--resume",)
    reports, most = end(large.start(*resumed, limit=limit))
    assert (len(reports), most <= limit) == (8, True)
    assert contents(out) == large.whole()
    clear(large.folder)


def published(out: Path) -> int:
    """How many merges of a sweep are whole."""
    if not out.exists():
        return 0
    names = [path.name for path in out.iterdir()]
    return sum(not name.endswith(".partial") and not is_private(name) for name in names)


def test_a_fault_in_the_last_config_is_found_before_the_first_output(large):
    folder = large.folder
    write_model(folder / "odd", 399, 9, MLP)
    last = folder / (folder / "subsets.csv").read_text().splitlines()[-1].split(",")[0]
    text = last.read_text()
    last.write_text(text.replace(f"{folder}/{NAMES[3]}", f"{folder}/odd"))
    _, said = (process := large.start()).communicate(timeout=100)
    last.write_text(text)
    assert process.returncode == 1
    assert f"model.layers.3.{MLP}.experts.99.up_proj.weight"[:60] in said
    assert not (folder / "out").exists()


def merged(folder: Path, files: int, *words: str) -> subprocess.CompletedProcess[str]:
    """A merge that may have so many files open."""
    return subprocess.run(
        [*COMMAND, "merge", *words, "--threads", "2", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
    )


def test_few_files_may_be_open(tmp_path):
    """Sixteen merges of five shards each."""
    make_sweep(tmp_path, 50, 16)
    many = ("--many", "subsets.csv")
    size = ("--out-shard-size", "350")
    run = cli_process("merge", *many, "whole", *size, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for out, files, device in (("out", 64, ()), ("device", 128, ("--device", "cpu"))):
        run = merged(tmp_path, files, *many, out, *size, *device, "--json")
        assert run.returncode == 0, run.stderr
        reports = json.loads(run.stdout)["merges"]
        assert {len(report["files"]) for report in reports} == {5}
        assert contents(tmp_path / out) == contents(tmp_path / "whole")


def requests(folder: Path, merges: int) -> list[MergeRequest]:
    csv = make_sweep(folder, 20, merges)
    configs = [folder / line.split(",")[0] for line in csv.read_text().splitlines()[1:]]
    (folder / "out").mkdir()
    return [MergeRequest(c, folder / "out" / str(i)) for i, c in enumerate(configs)]


def test_the_growth_of_the_process_neither_raises_the_least_nor_refuses(tmp_path, monkeypatch):
    wanted = requests(tmp_path, 6)
    taken = 30 * MIB

    def grows() -> int:
        nonlocal taken
        taken += MIB
        return taken

    monkeypatch.setattr(turns, "anonymous_bytes", lambda: 30 * MIB)
    monkeypatch.setattr(preflight, "anonymous_bytes", grows)
    told = set()
    for limit in (5, 38, 45):
        with pytest.raises(InputError, match="memory limit is too low") as caught:
            turns.Turns(wanted, MergeOptions(threads=1, memory_limit=limit * 1_000_000))
        told.add(re.search(r"expected (\d+) MB or more with 1 thread,", caught.value.message)[1])
    assert len(told) == 1
    limit = int(told.pop()) * 1_000_000
    groups = turns.Turns(wanted, MergeOptions(threads=1, memory_limit=limit))
    taken = limit
    done = []
    for group, checked in groups:
        done += group
        # What the core cannot do without, whatever the process takes by now.
        assert checked.core_memory == checked.family.forecast(1)["least_memory_bytes"]
        del checked
    assert done == [*range(6)]


def test_what_is_left_to_mergekit_is_refused_before_the_first_output_or_not_at_all(
    tmp_path, monkeypatch
):
    wanted = requests(tmp_path, 4)
    taken = 30 * MIB
    monkeypatch.setattr(turns, "anonymous_bytes", lambda: 30 * MIB)
    monkeypatch.setattr(preflight, "anonymous_bytes", lambda: taken)
    monkeypatch.setattr(turns, "_most_at_once", lambda _: 1)
    build_plan = turns.build_plan

    def with_fallback(*args: object, **options: object) -> MergePlan:
        fallback = SimpleNamespace(memory_bytes=50 * MIB, tensors=["x"])
        return replace(build_plan(*args, **options), fallback=fallback)

    monkeypatch.setattr(turns, "build_plan", with_fallback)
    # The growth that is expected of the process counts at once.
    with pytest.raises(InputError, match="mergekit's executor.* too low"):
        turns.Turns(wanted, MergeOptions(threads=1, memory_limit=85 * MIB))
    groups = iter(turns.Turns(wanted, MergeOptions(threads=1, memory_limit=95 * MIB)))
    for number in range(4):
        group, checked = next(groups)
        assert list(group) == [number]
        del checked
        taken += 10 * MIB


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_too_few_open_files_are_told_with_how_many_are_needed(many, tmp_path):
    csv = make_sweep(tmp_path, 20, 24)
    last = csv.read_text().splitlines()[-1].split(",")[0]
    words = ("--many", "subsets.csv", "out") if many else (last, "out")
    run = merged(tmp_path, 10, *words)
    told = re.search(
        r"too few files may be open at a time: expected (\d+) or more, found 10\n\n"
        r"hint: .*`ulimit -n \1`",
        run.stderr,
    )
    assert told, run.stderr
    assert not (tmp_path / "out").exists()
    assert merged(tmp_path, int(told[1]), *words).returncode == 0


def test_parts_of_a_group_that_is_too_large_are_not_held_together(tmp_path, monkeypatch):
    wanted = requests(tmp_path, 3)
    made: list[weakref.ref] = []

    def check_one(some, *rest):
        assert not any(one() for one in made), "an earlier part is still held"
        if len(some) > 1:
            raise turns.TooManyError
        checked = check_group(some, *rest)
        made.append(weakref.ref(checked))
        return checked

    check_group = turns.check_group
    monkeypatch.setattr(turns, "check_group", check_one)
    groups = turns.Turns(wanted, MergeOptions())
    assert len(made) == 3
    for group, checked in groups:
        assert len(group) == len(checked.merges) == 1
        del checked
    assert len(made) == 6


@pytest.mark.parametrize("mlp", ["mlp", MLP], ids=len)
def test_the_room_that_is_asked_for_is_what_is_needed(mlp, tmp_path, monkeypatch):
    csv = make_sweep(tmp_path, 300, 12, mlp)
    configs = [tmp_path / line.split(",")[0] for line in csv.read_text().splitlines()[1:]]
    wanted = [MergeRequest(c, tmp_path / "out" / str(i)) for i, c in enumerate(configs)]
    asked, taken = [], []
    monkeypatch.setattr(turns, "check_space", lambda _, n_bytes: asked.append(n_bytes))
    publish = Workspace.publish

    def measured(work: Workspace) -> Path | None:
        taken.append(sum(512 * path.lstat().st_blocks for path in work.folder.rglob("*")))
        return publish(work)

    monkeypatch.setattr(Workspace, "publish", measured)
    merge_many(wanted, MergeOptions(max_shard_bytes=1 << 12))
    assert len(taken) == 12
    assert sum(taken) <= sum(asked) <= sum(taken) + 12 * 1.5 * MIB
