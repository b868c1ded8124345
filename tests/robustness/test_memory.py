"""A merge keeps to its memory limit, whatever its inputs' size; its bytes do not depend on it."""

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mergeplan.bench.models import Shape, make_pool
from mergeplan.config.methods import METHODS
from tests.support.commands import cli_process
from tests.support.merges import config_text
from tests.support.runs import contents, end, make_vocabulary, start
from tests.support.shares import spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MIB = 1 << 20
VALUES = {
    "weight": 0.6,
    "density": 0.4,
    "select_topk": 0.3,
    "t": 0.3,
    "scale": 0.5,
    "rescale": True,
}
SHARE = [("ties", 2, "bfloat16"), ("dare_ties", 2, "float32"), ("model_stock", 2, "bfloat16")]
ALL = [(name, k, dtype) for name in METHODS for k in (2, 8) for dtype in ("bfloat16", "float32")]


@pytest.fixture(scope="module")
def models(full, tmp_path_factory) -> list[Path]:
    """A base and experts with a large vocabulary: 34 MB each."""
    return make_vocabulary(tmp_path_factory.mktemp("vocabulary"), 9 if full else 3)


def write_config(cwd: Path, models: list[Path], name: str, k: int, dtype: str) -> None:
    """A merge of `k` experts, or as many as the method takes, with its dearest options."""
    method = METHODS[name]
    inputs = models[1 : 1 + min(k, method.max_inputs or k)]
    values = {key: value for key, value in VALUES.items() if key in method.options}
    each = {key: value for key, value in values.items() if method.options[key].per_input}
    text = config_text(
        name,
        inputs,
        base=None if method.base == "none" else models[0],
        per_model=[each] * len(inputs),
        parameters={key: value for key, value in values.items() if key not in each},
        dtype=dtype,
    )
    (cwd / "c.yml").write_text(text)


def watched(cwd: Path, *args: object, first=None) -> tuple[dict, int]:
    """Run a merge; returns its report and the most anonymous memory that was seen from outside."""
    process = start(cwd, *args, "--json", "--overwrite", fresh=True, first=first)
    seen = [0]
    status = Path(f"/proc/{process.pid}/status")

    def look() -> None:
        while process.poll() is None:
            with suppress(OSError):  # it ends as it likes
                found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
                seen.append(int(found[1]) << 10 if found else 0)
            time.sleep(0.002)

    watcher = threading.Thread(target=look)
    watcher.start()
    ended = end(process)
    watcher.join()
    assert ended.code == 0, ended.stderr
    return ended.report, max(seen)


def least_limit(cwd: Path, *args: object) -> int:
    """What the message of a limit that is too low says would do."""
    ended = end(start(cwd, *args, "--memory-limit", "1MB", fresh=True))
    assert ended.code == 1
    assert not (cwd / "out").exists()
    found = re.search(r"expected (\d+) MB or more", ended.stderr)
    assert found, ended.stderr
    return int(found[1]) * 1_000_000


def check(cwd: Path, threads: int) -> tuple[int, int]:
    """The same bytes at every limit, and never more memory; returns the least, and what it took."""
    least = least_limit(cwd, "--threads", threads)
    results = []
    for limit in (least, max(least, 64 * MIB), None):
        given = () if limit is None else ("--memory-limit", limit)
        report, seen = watched(cwd, "--threads", threads, *given)
        allowed = report["memory_limit_bytes"]
        assert limit in (None, allowed)
        assert report["peak_anonymous_bytes"] <= allowed, (limit, report)
        assert seen <= allowed, (limit, seen, report)
        results.append((contents(cwd / "out"), seen))
    assert results[0][0] == results[1][0] == results[2][0]
    return least, results[0][1]


@pytest.mark.parametrize(("name", "k", "dtype"), spread(SHARE[::-1], 2))
def test_the_limit_holds(name, k, dtype, models, tmp_path):
    write_config(tmp_path, models, name, k, dtype)
    check(tmp_path, 2)


@pytest.fixture(scope="module")
def many_tensors(tmp_path_factory) -> list[Path]:
    """A base and two experts of 56 matrices, so that each of many threads has one to work on."""
    root = tmp_path_factory.mktemp("many")
    names = list(make_pool(root, Shape(512, 1024, 8, 1000, 64, 8), 2))
    return [root / name for name in names]


@pytest.mark.parametrize("threads", [16, 48])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("ties", "float32"), ("della", "bfloat16"), ("della", "float32"), ("linear", "bfloat16")],
)
def test_many_threads_take_no_more_than_was_forecast(name, dtype, threads, many_tensors, tmp_path):
    write_config(tmp_path, many_tensors, name, 2, dtype)
    told = cli_process("inspect", tmp_path / "c.yml", "--threads", threads, "--json")
    memory = json.loads(told.stdout)["merges"][0]["forecast"]["memory"]
    report, seen = watched(tmp_path, "--threads", threads)
    assert report["threads"] == threads
    assert max(seen, report["peak_anonymous_bytes"]) <= memory["peak_bytes"]
    # The default: 256 MiB at two threads, and 32 MiB for each more.
    assert memory["peak_bytes"] <= memory["limit_bytes"] == (192 + 32 * threads) * MIB


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "k", "dtype"), ALL)
def test_the_limit_holds_for_every_method(name, k, dtype, models, tmp_path):
    write_config(tmp_path, models, name, k, dtype)
    for threads in (1, 4):
        least, seen = check(tmp_path, threads)
        print(f"\n{name} {k} {dtype} {threads} threads: least {least}, took {seen}", flush=True)
        (tmp_path / "out").rename(tmp_path / f"out{threads}")


def drop_from_cache(paths: list[Path]) -> None:
    """So that whoever reads a file next is charged for it."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_resident_memory_does_not_grow_with_the_inputs(models, tmp_path):
    """Pages that were read are given back, though the system would have room for them."""
    write_config(tmp_path, models, "linear", 8, "bfloat16")
    report, _ = watched(tmp_path, "--threads", 1)
    size = sum((path / "model.safetensors").stat().st_size for path in models)
    # Every 4 MiB of each input, beside the program itself and what it computes with.
    assert report["peak_resident_bytes"] < 48 * MIB + len(models) * 4 * MIB
    assert report["peak_resident_bytes"] < 0.65 * size


@pytest.mark.long
@pytest.mark.timeout(600)
def test_resident_memory_stays_at_one_tensor_of_each_input(large, tmp_path):
    """Statistics go over a tensor several times; its pages are given back at the last."""
    pool = large.pool
    cwd = large.place(tmp_path / "w", "della")
    report, _ = watched(cwd, "--threads", 1, "--memory-limit", "64MiB")
    size = 4 * pool.tensors * pool.elements * 2
    print(f"\nresident {report['peak_resident_bytes']} of {size} bytes of inputs", file=sys.stderr)
    assert report["peak_resident_bytes"] < 96 * MIB + size / pool.tensors


@contextmanager
def memory_group(limit: int):
    """A control group with so much memory, page cache included; yields its folder and its peak."""
    root = Path("/sys/fs/cgroup")
    second = (root / "cgroup.controllers").exists()
    group = (root if second else root / "memory") / f"mergeplan-test-{os.getpid()}"
    limits = "memory.max" if second else "memory.limit_in_bytes"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group: {error}")
    try:
        try:
            (group / limits).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"cannot limit a control group's memory: {error}")
        yield group, group / ("memory.peak" if second else "memory.max_usage_in_bytes")
    finally:
        for _ in range(100):  # what ended a moment ago may still be counted
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


@pytest.mark.parametrize("name", ["linear", "ties"])
def test_inputs_larger_than_the_memory_of_a_control_group(name, full, models, tmp_path):
    write_config(tmp_path, models, name, 8 if full else 2, "bfloat16")
    drop_from_cache([path / "model.safetensors" for path in models])
    size = sum((path / "model.safetensors").stat().st_size for path in models)
    # A third of the inputs in the long run.
    limit = 96 * MIB
    assert size > limit
    with memory_group(limit) as (group, peak):

        def join() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        report, _ = watched(tmp_path, "--memory-limit", "64MiB", "--threads", 2, first=join)
        most = int(peak.read_text())
    print(f"\n{name}: inputs {size}, group {limit}, peak {most} bytes", file=sys.stderr)
    assert most <= limit
    assert report["written_bytes"] > 0


def test_a_limit_on_data_that_the_system_keeps(full, models, tmp_path):
    """`RLIMIT_DATA` counts what is reserved, stacks of threads among it; maps of files are not."""
    write_config(tmp_path, models, "ties", 8 if full else 2, "bfloat16")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (192 * MIB, 192 * MIB))

    report, _ = watched(tmp_path, "--memory-limit", "64MiB", "--threads", 2, first=limit)
    assert report["peak_anonymous_bytes"] <= 64 * MIB


def test_a_system_that_gives_no_threads_is_at_fault_not_the_plan(small_models):
    """The stacks of a thousand threads are more than the limit."""
    hashing = (
        "import resource, sys\n"
        "from mergeplan import _native, errors\n"
        f"resource.setrlimit(resource.RLIMIT_DATA, ({512 * MIB}, {512 * MIB}))\n"
        "try:\n"
        "    _native.content_hashes(sys.argv[1], threads=1000)\n"
        "except errors.SurroundingsError as error:\n"
        "    print(error.exit_code, error)\n"
    )
    command = [sys.executable, "-c", hashing, str(small_models / "a")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert re.match("1 cannot start 1000 threads: .+", ended.stdout), ended.stderr


def test_a_system_that_gives_less_and_less_memory_is_an_error_and_never_an_end(
    full, models, tmp_path
):
    write_config(tmp_path, models, "ties", 2, "bfloat16")
    merging = (
        "import os, resource, sys\n"
        "import mergeplan\n"
        "from mergeplan import errors\n"
        "mergeplan.merge('c.yml', 'first')\n"
        "(now,) = [l.split()[1] for l in open('/proc/self/status') if l.startswith('VmData')]\n"
        f"for more in range(0, 48, {2 if full else 4}):\n"
        "    if child := os.fork():\n"
        "        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "        continue\n"
        f"    most = int(now) * 1024 + more * {MIB}\n"
        "    resource.setrlimit(resource.RLIMIT_DATA, (most, most))\n"
        "    try:\n"
        "        mergeplan.merge('c.yml', f'out-{more}')\n"
        "    except (errors.SurroundingsError, MemoryError):\n"
        "        os._exit(1)\n"
        "    os._exit(0)\n"
    )
    command = [sys.executable, "-c", merging]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    codes = ended.stdout.split()
    assert set(codes) == {"0", "1"}, ended.stdout + ended.stderr
    assert codes == sorted(codes, reverse=True)
