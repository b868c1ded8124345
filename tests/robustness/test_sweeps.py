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
from itertools import combinations
from pathlib import Path

import pytest

from mergeplan.errors import InputError
from mergeplan.merging import preflight, turns
from mergeplan.merging.options import MergeOptions, MergeRequest
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
LIMIT = 80 * MIB


def write_model(folder: Path, tensors: int, seed: int) -> None:
    """A checkpoint of many small tensors."""
    folder.mkdir()
    head = {
        f"model.layers.{i // 100}.mlp.experts.{i % 100}.up_proj.weight": {
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


def make_sweep(folder: Path, tensors: int, merges: int) -> Path:
    """`subsets.csv` of so many merges by two methods."""
    for seed, name in enumerate(("base", *NAMES)):
        write_model(folder / name, tensors, seed)
    experts = {name: str(folder / name) for name in NAMES}
    size = {"base": str(folder / "base"), "experts": experts}
    methods = {"ties": {"density": 0.5}, "dare": {"density": 0.5}}
    (folder / "pool.yml").write_text(json.dumps({"sizes": [size], "methods": methods}))
    pool = load_pool(folder / "pool.yml")
    subsets = [s for k in range(1, len(NAMES) + 1) for s in combinations(NAMES, k)]
    some = [subset_merge(pool, 0, label, s, seed=7) for s in subsets for label in methods]
    write_subsets(folder / "subsets.csv", some[:merges], pool)
    return folder / "subsets.csv"


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Fourteen merges that take more memory together than the limit, and what they give."""
    folder = tmp_path_factory.mktemp("large")
    make_sweep(folder, 2000, 14)
    run = cli_process(
        "merge", "--many", "subsets.csv", "whole", "--memory-limit", "1GB", cwd=folder
    )
    assert run.returncode == 0, run.stderr
    return folder


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


def test_more_merges_than_memory_holds_are_done_in_turns(large):
    reports, most = end(start(large, "--memory-limit", LIMIT))
    assert most <= LIMIT, most
    assert len(reports) == 14
    assert {report["memory_limit_bytes"] for report in reports} == {LIMIT}
    assert max(report["peak_anonymous_bytes"] for report in reports) <= LIMIT
    assert contents(large / "out") == contents(large / "whole")
    clear(large)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_that_is_stopped_between_its_turns_goes_on(large, how):
    clear(large)
    process = start(large, "--memory-limit", LIMIT)
    out = large / "out"
    deadline = time.monotonic() + 60
    # Some are published, and the next are at work.
    while not (
        out.exists()
        and any(not path.name.endswith(".partial") for path in out.iterdir())
        and any((path / "journal").exists() for path in out.glob("*.partial"))
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert len([path for path in out.iterdir() if path.suffix != ".partial"]) < 14
    # What it was removing when it was killed is swept up once it is a minute old.
    for path in filter(lambda path: is_private(path.name), out.iterdir()):
        os.utime(path, (0, 0))
    reports, most = end(start(large, "--memory-limit", LIMIT, "--resume"))
    assert (len(reports), most <= LIMIT) == (14, True)
    assert contents(out) == contents(large / "whole")
    clear(large)


def test_a_fault_in_the_last_config_is_found_before_the_first_output(large):
    write_model(large / "odd", 1999, 9)
    last = large / (large / "subsets.csv").read_text().splitlines()[-1].split(",")[0]
    text = last.read_text()
    last.write_text(text.replace(f"{large}/a", f"{large}/odd"))
    run = cli_process("merge", "--many", "subsets.csv", "out", "--memory-limit", LIMIT, cwd=large)
    last.write_text(text)
    assert run.returncode == 1
    assert "model.layers.19.mlp.experts.99.up_proj.weight" in run.stderr
    assert not (large / "out").exists()


@pytest.mark.parametrize(("device", "files"), [((), 64), (("--device", "cpu"), 128)], ids=str)
def test_few_files_may_be_open(device, files, tmp_path):
    """Thirty merges of five shards each."""
    make_sweep(tmp_path, 100, 30)
    size = ("--out-shard-size", "700")
    run = cli_process("merge", "--many", "subsets.csv", "whole", *size, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    command = [*COMMAND, "merge", "--many", "subsets.csv", "out", *size, *device, "--json"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
    )
    assert run.returncode == 0, run.stderr
    reports = json.loads(run.stdout)["merges"]
    assert {len(report["files"]) for report in reports} == {5}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def requests(folder: Path, merges: int) -> list[MergeRequest]:
    csv = make_sweep(folder, 20, merges)
    configs = [folder / line.split(",")[0] for line in csv.read_text().splitlines()[1:]]
    (folder / "out").mkdir()
    return [MergeRequest(c, folder / "out" / str(i)) for i, c in enumerate(configs)]


def test_the_least_memory_that_is_told_is_enough(tmp_path):
    make_sweep(tmp_path, 600, 24)
    words = ("merge", "--many", "subsets.csv", "out", "--threads", "2", "--json", "--memory-limit")
    run = cli_process(*words, "5MB", cwd=tmp_path)
    assert run.returncode == 1
    assert not (tmp_path / "out").exists()
    least = re.search(r"expected (\d+) MB or more with 2 threads, found 5 MB", run.stderr)[1]
    run = cli_process(*words, f"{least}MB", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    reports = json.loads(run.stdout)["merges"]
    assert len(reports) == 24
    assert max(report["peak_anonymous_bytes"] for report in reports) <= int(least) * 1_000_000


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


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_too_few_open_files_are_told_with_how_many_are_needed(many, tmp_path):
    csv = make_sweep(tmp_path, 20, 24)
    last = csv.read_text().splitlines()[-1].split(",")[0]
    words = ["--many", "subsets.csv", "out"] if many else [last, "out"]

    def merged(files: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "merge", *words, "--threads", "2", "--quiet"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
        )

    run = merged(10)
    told = re.search(
        r"too few files may be open at a time: expected (\d+) or more, found 10\n\n"
        r"hint: .*`ulimit -n \1`",
        run.stderr,
    )
    assert told, run.stderr
    assert not (tmp_path / "out").exists()
    assert merged(int(told[1])).returncode == 0


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
