"""Merges in processes of their own, to be stopped, and what they leave."""

import hashlib
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.commands import COMMAND, cli
from tests.support.forked import Forked
from tests.support.merges import config_text

Process = subprocess.Popen[str] | Forked
RECORD_BYTES = 24
BLOCK = 1 << 16
CHUNK = 4096

# Method, options of each model, dtype of the arithmetic.
RECIPES: dict[str, tuple[str, dict[str, Any], str]] = {
    "ties": ("ties", {"weight": 1, "density": 0.5}, "bfloat16"),
    "dare_ties": ("dare_ties", {"weight": 0.6, "density": 0.4}, "bfloat16"),
    "della": ("della", {"weight": 0.7, "density": 0.5, "epsilon": 0.2}, "bfloat16"),
    "linear": ("linear", {"weight": 1}, "bfloat16"),
    "ties_float32": ("ties", {"weight": 1, "density": 0.3}, "float32"),
    "model_stock": ("model_stock", {}, "bfloat16"),
}


@dataclass(frozen=True)
class Pool:
    """A base and three experts, and how large they are.

    Attributes:
        shard_bytes: Shard size that gives an output of several shards.
        times: How often a recipe merges each expert, where once would be too quick.
    """

    folder: Path
    tensors: int
    elements: int
    shard_bytes: int
    times: dict[str, int] = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        """Blocks of an output."""
        return self.tensors * -(-self.elements // BLOCK)

    def config(self, recipe: str) -> str:
        method, options, dtype = RECIPES[recipe]
        base = None if method == "linear" else self.folder / "base"
        turns = range(self.times.get(recipe, 1))
        models = [self.folder / f"{name}{turn or ''}" for turn in turns for name in "abc"]
        per_model = [options] * len(models) if options else None
        return config_text(method, models, base=base, per_model=per_model, dtype=dtype)

    def points(self, recipe: str) -> dict[str, int]:
        """The points of `MERGEPLAN_FAULT` that such a merge passes, and how often at the least."""
        shards = -(-self.tensors * self.elements * self.bytes_each(recipe) // self.shard_bytes)
        points = {"begin": 1, "layout": shards, "read": self.blocks * BLOCK // CHUNK * 3}
        if recipe != "linear":
            points |= {"statistics": self.tensors, "apply": self.tensors}
        points |= {"write": self.blocks, "journal": self.blocks, "sync": shards}
        return points | dict.fromkeys(("companions", "index", "publish", "published"), 1)

    def bytes_each(self, recipe: str) -> int:
        return 4 if RECIPES[recipe][2] == "float32" else 2


def make_pool(folder: Path, tensors: int, shape: tuple[int, int], **times: int) -> Pool:
    """Write bfloat16 checkpoints, each with a config and a tokenizer."""
    elements = shape[0] * shape[1]
    noise = _noise(elements)
    for number, name in enumerate(("base", "a", "b", "c")):
        values = {
            f"layers.{i}.weight": np.roll(noise, i * 977) + 0.1 * np.roll(noise, number * 13 + i)
            for i in range(tensors)
        }
        save_bfloat16(folder / name, {key: v.reshape(shape) for key, v in values.items()})
        (folder / name / "tokenizer.json").write_text(json.dumps({"name": name}))
    for turn in range(1, max(times.values(), default=1)):
        for name in "abc":
            shutil.copytree(folder / name, folder / f"{name}{turn}", copy_function=os.link)
    shard_bytes = tensors * elements * 2 * 6 // 10
    return Pool(folder, tensors, elements, shard_bytes, times)


def make_vocabulary(folder: Path, models: int) -> list[Path]:
    """Write models with one tensor that is cut into segments, and two small ones."""
    shapes = {"embed": (4100, 4096), "x": (700, 300), "y": (1000,)}
    noise = _noise(4100 * 4096)
    paths = []
    for number in range(models):
        values = noise + 0.1 * np.roll(noise, 13 * number + 1)
        tensors = {name: values[: math.prod(s)].reshape(s) for name, s in shapes.items()}
        paths.append(save_bfloat16(folder / f"m{number}", tensors))
    return paths


def _noise(elements: int) -> np.ndarray:
    generator = np.random.default_rng(7)
    return generator.normal(scale=0.02, size=elements).astype(np.float32)


def save_bfloat16(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """Write float32 values, cut to bfloat16, as a checkpoint."""
    folder.mkdir(parents=True)
    header: dict[str, Any] = {}
    end = 0
    for name, values in tensors.items():
        begin, end = end, end + 2 * values.size
        header[name] = {"dtype": "BF16", "shape": values.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    return folder


def make_zeros(folder: Path, elements: int) -> None:
    """Write four float32 models of zeros, as sparse files that take no room."""
    x = {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}
    header = json.dumps({"x": x}).encode()
    for name in ("base", "a", "b", "c"):
        (folder / name).mkdir(parents=True)
        with (folder / name / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + 4 * elements)


def start(
    cwd: Path,
    *args: object,
    fault: str = "",
    fresh: bool = False,
    first: Callable[[], None] | None = None,
) -> Process:
    """Begin `mergeplan merge c.yml out …` in `cwd`, forked or `fresh`.

    Args:
        first: Called in a fresh process before the command.
    """
    words = ["merge", "c.yml", "out", *map(str, args)]
    env = {**os.environ, "MERGEPLAN_FAULT": fault}
    if not fresh:
        return Forked(words, cwd, env)

    def prepare() -> None:
        # A test run in a shell's background inherits an ignored Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if first:
            first()

    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare if os.name == "posix" else None,
    )


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.stdout)


def end(process: Process) -> Ended:
    """Wait for a process."""
    stdout, stderr = process.communicate(timeout=100)
    assert "Traceback" not in stderr, stderr
    return Ended(process.returncode, stdout, stderr)


def run(cwd: Path, *args: object, fault: str = "") -> Ended:
    """Run `mergeplan merge c.yml out … --json` in `cwd` to its end.

    It has a process of its own where a fault stops it.
    """
    if fault:
        return end(start(cwd, *args, "--json", fault=fault))
    done = cli("merge", "c.yml", "out", *args, "--json", cwd=cwd)
    return Ended(done.returncode, done.stdout, done.stderr)


def succeed(cwd: Path, *args: object) -> dict[str, Any]:
    """Run a merge that must succeed; returns its report."""
    ended = run(cwd, *args)
    assert ended.code == 0, ended.stderr
    assert not (cwd / "out.partial").exists()
    return ended.report


def start_halted(cwd: Path, *args: object, at: str) -> Process:
    """Begin such a merge, and wait until it stands still at a point; SIGCONT lets it go on."""
    process = start(cwd, *args, fault=f"{at}:stop")
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + 60
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file, by its name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest = hashlib.blake2b()
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
            found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


class Undisturbed:
    """What merges give that nobody disturbs, each made once."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool = pool
        self._folder = folder
        self._known: dict[tuple[object, ...], tuple[dict[str, str], dict[str, Any]]] = {}

    def __call__(self, recipe: str, *args: object) -> tuple[dict[str, str], dict[str, Any]]:
        """Digests of the files, and the report."""
        key = (recipe, *args)
        if key not in self._known:
            cwd = self.place(self._folder / str(len(self._known)), recipe)
            report = succeed(cwd, *args)
            self._known[key] = contents(cwd / "out"), report
        return self._known[key]

    def place(self, cwd: Path, recipe: str) -> Path:
        """A folder to merge in."""
        cwd.mkdir(parents=True)
        (cwd / "c.yml").write_text(self.pool.config(recipe))
        return cwd
