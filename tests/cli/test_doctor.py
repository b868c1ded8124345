"""`mergeplan doctor` on this machine, and on machines made of files."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import mergeplan
from mergeplan.onboarding import doctor as doctoring
from mergeplan.onboarding import gpus
from mergeplan.onboarding.packages import EXTRAS, REQUIRED, Package
from mergeplan.onboarding.states import Check
from mergeplan.system.machine import (
    core_limit,
    file_system,
    memory_limit,
    usable_cores,
    worker_threads,
)
from tests.support.commands import cli, cli_process
from tests.support.settings import ROOT


def write(root: Path, files: dict[str, str]) -> Path:
    """A machine of files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def check(topic: str, root: Path = Path("/"), *, devices: bool = False) -> Check:
    checks = mergeplan.doctor(devices=devices, root=root).checks
    [found] = [one for one in checks if one.topic == topic]
    return found


def test_this_machine_can_merge_and_a_screen_says_so():
    run = cli("doctor")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"^ok +versions +mergeplan 0\.1\.0, Python 3", run.stdout, re.MULTILINE)
    assert len(run.stdout.splitlines()) < 30
    found = json.loads(cli("doctor", "--json").stdout)
    assert found["works"] is True
    assert found["packages"]["pydantic"]
    assert found["torch_sees"] is None


def test_nothing_heavy_is_imported_unless_asked():
    heavy = ("torch", "numpy", "pydantic", "yaml", "transformers", "huggingface_hub")
    code = "import sys, mergeplan; mergeplan.doctor()\n"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_tables_of_packages_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [f"{name}{version}" for name, version in REQUIRED.items()] == project["dependencies"]
    for name, extra in EXTRAS.items():
        listed = [one for one in project["optional-dependencies"][name] if "mergeplan" not in one]
        assert [f"{package}{version}" for package, version in extra.packages.items()] == listed


@pytest.mark.parametrize(
    ("version", "needed", "fault"),
    [
        ("2.15.0+cu132", ">=2.4", ""),
        ("2.3.1", ">=2.4", "torch is 2.3.1, expected >=2.4"),
        ("0.1.6", "==0.1.5", "torch is 0.1.6, expected ==0.1.5"),
        ("6.0", ">=6", ""),
        (None, ">=2.4", "torch is not installed"),
    ],
)
def test_versions_are_compared_by_their_numbers(version, needed, fault):
    assert Package("torch", version, needed).fault == fault


def lacking(monkeypatch, *names: str) -> None:
    find = doctoring.find_package

    def without(name: str, needed: str) -> Package:
        return Package(name, None, needed) if name in names else find(name, needed)

    monkeypatch.setattr(doctoring, "find_package", without)


def test_an_extra_that_is_missing_is_named_with_what_needs_it(monkeypatch):
    lacking(monkeypatch, "torch")
    run = cli("doctor")
    assert run.returncode == 0
    assert re.search(r"^missing +eval +torch is not installed$", run.stdout, re.MULTILINE)
    assert "needed for `evaluate`, `compare`, `calibrate`, `merge --device`" in run.stdout
    assert "`pip install 'mergeplan[eval]'`" in run.stdout


def test_without_what_every_merge_needs_the_exit_code_is_1(monkeypatch):
    lacking(monkeypatch, "pydantic")
    run = cli("doctor", "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout)["works"] is False
    assert re.search(r"^fails +packages +pydantic is not", cli("doctor").stdout, re.MULTILINE)


def test_it_runs_where_packages_cannot_be_imported(tmp_path):
    for name in ("pydantic", "numpy", "yaml", "scipy", "regex", "torch"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = cli_process("doctor", env={"PYTHONPATH": path})
    assert run.returncode == 0, run.stderr
    assert "versions" in run.stdout


CPU = "processor : 0\nmodel name : Some CPU\nflags : fpu {}\n"


def test_the_processors_instructions_are_what_the_kernel_says(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(doctoring.platform, "machine", lambda: "x86_64")
    root = write(tmp_path, {"proc/cpuinfo": CPU.format("avx2 avx512f avx512_bf16")})
    assert check("processor", root).found.startswith("Some CPU")
    assert check("processor", root).state == "ok"
    assert "computes in it" in check("bfloat16", root).found
    write(tmp_path, {"proc/cpuinfo": CPU.format("sse2")})
    assert "need AVX2" in check("processor", root).why
    assert check("bfloat16", root).found == "no"
    write(tmp_path, {"proc/cpuinfo": "Features : fp bf16\n"})
    assert "computes in it" in check("bfloat16", root).found
    assert "not known" in check("bfloat16", tmp_path / "nothing").found


def test_fewer_threads_than_cores_are_told(monkeypatch):
    monkeypatch.setattr(doctoring, "usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "1 of 8 cores" in check("processor").why


def test_the_limits_of_control_groups_count(tmp_path):
    group = "sys/fs/cgroup/a"
    two = write(
        tmp_path / "2",
        {
            "proc/self/cgroup": "0::/a/b\n",
            f"{group}/b/memory.max": "max\n",
            f"{group}/memory.max": "100000000\n",
            f"{group}/cpu.max": "150000 100000\n",
        },
    )
    assert (memory_limit(two), core_limit(two)) == (100_000_000, 1.5)
    assert worker_threads(two) == min(usable_cores() or 1, 2)
    found = check("memory", two)
    assert (found.state, "a limit of 100 MB" in found.found) == ("slow", True)
    assert "`--memory-limit`" in found.hint
    # In a container of version 1 the path is the host's: the mount is the group.
    one = write(
        tmp_path / "1",
        {
            "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/../../x\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert (memory_limit(one), core_limit(one)) == (2_000_000_000, None)
    write(one, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    write(one, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000"})
    assert (memory_limit(one), core_limit(one)) == (None, 0.5)
    assert worker_threads(one) == 1


def test_a_network_mount_is_told_by_the_longest_path_and_the_last_on_top(tmp_path, monkeypatch):
    place = tmp_path / "a b ü"
    place.mkdir()
    mount = str(place).replace(" ", "\\040")
    lines = [
        "1 0 0:1 / / rw - ext4 /dev/a rw",
        f"2 1 0:2 / {mount} rw shared:1 - xfs /dev/b rw",
        f"3 1 0:3 / {mount} rw - nfs4 host:/x rw",
        f"4 1 0:4 / {mount}c rw - tmpfs none rw",
    ]
    root = write(tmp_path / "root", {"proc/self/mountinfo": "\n".join(lines)})
    assert file_system(place / "model", root) == "nfs4"
    assert file_system(tmp_path, root) == "ext4"
    assert file_system(tmp_path, tmp_path) is None
    monkeypatch.chdir(place)
    found = check("disk", root)
    assert (found.state, "nfs4" in found.found) == ("slow", True)
    assert "not mapped but read" in found.why


def test_little_room_and_a_folder_that_is_gone_are_told(monkeypatch):
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr(doctoring.shutil, "disk_usage", lambda _: usage)
    found = check("disk")
    assert (found.state, "1 GB free" in found.found) == ("slow", True)

    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(doctoring.os, "getcwd", gone)
    assert check("disk").found == "the working folder is gone"


def test_low_limits_of_the_shell_are_told(monkeypatch):
    limits = {
        resource.RLIMIT_NOFILE: (256, 512),
        resource.RLIMIT_FSIZE: (10**9, 10**9),
        resource.RLIMIT_AS: (10**10, 10**10),
    }
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert check("open files").found == "256, which a merge raises up to 512 where it must"
    assert check("open files").state == "slow"
    assert "longer than 1 GB" in check("file size").why
    assert "not mapped but read" in check("addresses").why


def test_gpus_that_torch_was_not_built_for_are_told(tmp_path, monkeypatch):
    card = "Model: \t\t NVIDIA H200\nIRQ: 1\n"
    root = write(tmp_path, {"proc/driver/nvidia/gpus/0/information": card})
    monkeypatch.setattr(gpus, "_built_for", lambda: None)
    found = check("GPUs", root)
    assert (found.state, found.found) == ("slow", "NVIDIA H200")
    assert "`--device cuda` fails" in found.why
    monkeypatch.setattr(gpus, "_built_for", lambda: "cuda 12.4")
    assert "built for cuda 12.4" in check("GPUs", root).found
    monkeypatch.setattr(gpus, "_by_torch", list)
    assert "sees none of them" in check("GPUs", root, devices=True).why
    sees = [{"name": "NVIDIA H200", "memory_bytes": 10**9}]
    monkeypatch.setattr(gpus, "_by_torch", lambda: sees)
    assert check("GPUs", root, devices=True).found == "torch sees NVIDIA H200 (1 GB)"


def test_what_torch_was_built_for_is_read_of_its_version_file():
    torch = pytest.importorskip("torch")
    built = gpus._built_for()
    assert (built or "").partition(" ")[2] == (torch.version.cuda or torch.version.hip or "")


def test_the_hubs_settings_are_told(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = check("hub cache")
    assert f"cache {tmp_path}/hub, which is not there yet" in found.found
    assert "HF_HUB_OFFLINE" in found.why
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (tmp_path / "hub").mkdir()
    assert check("hub cache") == Check("ok", "hub cache", f"cache {tmp_path}/hub")
