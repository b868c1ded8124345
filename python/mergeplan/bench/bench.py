"""The speed table: mergeplan beside a plain copy and mergekit, in one run on one machine."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from mergeplan.bench.machine import describe_machine
from mergeplan.bench.models import SHAPES, make_headers, make_pool
from mergeplan.bench.other import other_mergeplan
from mergeplan.bench.processes import (
    Run,
    copy_floor,
    mergekit_command,
    mergeplan_command,
    read_all,
    run_process,
    write_seconds,
)
from mergeplan.bench.serial import Bound
from mergeplan.checkpoints.checkpoint import WEIGHTS_FILE
from mergeplan.config.methods import METHODS
from mergeplan.errors import SurroundingsError
from mergeplan.system.files import check_space

# Options of each measured method; all weights are 1 and normalised where the method can.
CASES: dict[str, dict[str, float]] = {
    "ties": {"density": 0.2},
    "breadcrumbs": {"density": 0.9, "gamma": 0.01},
    "dare_linear": {"density": 0.5, "rescale": True},
    "dare_ties": {"density": 0.5, "rescale": True},
    "della": {"density": 0.5, "epsilon": 0.1},
    "task_arithmetic": {},
    "linear": {},
}
DTYPES = ("bfloat16", "float32")
# Planned, not merged.
LARGE = "7b"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        shape: Key of `models.SHAPES`.
        methods: Keys of `CASES`.
        ks: Numbers of experts.
        threads: For every contender.
        rounds: Runs of each; the median counts.
        mergekit_k: Experts in mergekit's runs, of which there is one for each method, in bfloat16;
            one of `ks`, or `None` to leave mergekit out.
        against: Another mergeplan, run in turn with this one: a checkout that is built, or a Python
            in whose environment it is installed.
    """

    shape: str = "0.5b"
    methods: tuple[str, ...] = tuple(CASES)
    ks: tuple[int, ...] = (4,)
    threads: int = 2
    rounds: int = 5
    mergekit_k: int | None = 4
    against: Path | None = None


@dataclass(frozen=True)
class CaseResult:
    """One contender on one case; `dtype` is that of the arithmetic."""

    contender: str
    method: str
    dtype: str
    k: int
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        """The median; of a copy, which is a floor, the fastest."""
        seconds = [run.seconds for run in self.runs]
        return min(seconds) if self.contender == "copy" else median(seconds)

    def peak(self, name: str) -> int | None:
        """The largest of the runs' peaks, `anonymous_bytes` or `resident_bytes`."""
        found = [getattr(run, name) for run in self.runs]
        return None if None in found else max(found)


@dataclass
class BenchReport:
    """All measurements, and where they were taken."""

    options: BenchOptions
    machine: dict[str, Any]
    measured: list[CaseResult] = field(default_factory=list)
    bound: Bound | None = None
    notes: list[str] = field(default_factory=list)

    def find(self, contender: str, method: str, dtype: str, k: int) -> CaseResult | None:
        """The measurement of a case, if it was taken."""
        wanted = (contender, method, dtype, k)
        return next(
            (m for m in self.measured if (m.contender, m.method, m.dtype, m.k) == wanted), None
        )


def bench(root: Path, options: BenchOptions, tell: Tell) -> BenchReport:
    """Make the models in `root` where they are missing, and measure.

    The contenders take turns within each round, so that a machine that grows slower or faster does
    so for all of them.

    Raises:
        SurroundingsError: No room, or a contender failed.
    """
    shape = SHAPES[options.shape]
    with_mergekit = options.mergekit_k is not None
    experts = max(options.ks)
    made = sum((root / name / "bench.json").exists() for name in _names(experts))
    # The models that are missing, and the outputs of two contenders.
    check_space(root, (experts + 1 - made + 2) * shape.n_bytes)
    for name in make_pool(root, shape, experts):
        tell(f"making {name}")
    if hasattr(os, "sync"):
        os.sync()  # or the first runs would wait for the models to reach the disk
    report = BenchReport(options, describe_machine(with_mergekit))
    for name in options.methods:
        if name not in METHODS:
            report.notes.append(f"`{name}` is not in this build of mergeplan")
    # A folder of its own, so that nothing of the user's is in the way.
    with TemporaryDirectory(prefix="run-", dir=root) as work:
        _Bench(root, Path(work), report, tell).run()
    return report


@dataclass(frozen=True)
class _Bench:
    """One run over all cases: models in `root`, configs and outputs in `work`."""

    root: Path
    work: Path
    report: BenchReport
    tell: Tell

    def run(self) -> None:
        options = self.report.options
        methods = [name for name in options.methods if name in METHODS]
        for k in options.ks:
            self._measure_k(methods, k)
        self._measure_bound(max(options.ks))
        if options.mergekit_k is not None:
            for method in methods:
                self._measure_mergekit(method, options.mergekit_k)

    def _measure_k(self, methods: list[str], k: int) -> None:
        options = self.report.options
        inputs = [self.root / name / WEIGHTS_FILE for name in _names(k)]
        for path in inputs:
            read_all(path)
        cases = [(method, dtype) for dtype in DTYPES for method in methods]
        contenders = ("mergeplan", "against") if options.against else ("mergeplan",)
        runs: dict[tuple[str, str, str], list[Run]] = {
            (name, *case): [] for case in cases for name in contenders
        }
        copies: list[Run] = []
        for number in range(options.rounds):
            where = f"k = {k}, round {number + 1} of {options.rounds}"
            self.tell(f"copy, {where}")
            copies.append(Run(copy_floor(inputs, self.work / "copy", options.threads), None, None))
            (self.work / "copy").unlink()
            for method, dtype in cases:
                config = write_case(self.root, self.work, method, dtype, k)
                # Whoever comes second finds warmer memory, so they take turns in that too.
                for name in contenders[:: 1 if number % 2 == 0 else -1]:
                    self.tell(f"{name} {method} {dtype}, {where}")
                    run = self._against if name == "against" else self._ours
                    runs[name, method, dtype].append(run(config))
        self.report.measured.append(CaseResult("copy", "", "", k, tuple(copies)))
        for (name, method, dtype), found in runs.items():
            self.report.measured.append(CaseResult(name, method, dtype, k, tuple(found)))

    def _ours(self, config: Path) -> Run:
        return self._one_run(mergeplan_command, config)

    def _against(self, config: Path) -> Run:
        python, variables = other_mergeplan(self.report.options.against)
        command = partial(mergeplan_command, python=python)
        return self._one_run(command, config, variables)

    def _measure_bound(self, k: int) -> None:
        """What one thread does whatever the number of cores, for a larger shape from headers."""
        length = (self.root / "base" / WEIGHTS_FILE).stat().st_size
        self.tell("one writer")
        write = write_seconds(length, self.work / "copy")
        (self.work / "copy").unlink()
        self.tell(f"the plan of {LARGE}")
        make_headers(self.work / LARGE, SHAPES[LARGE], k)
        config = write_case(self.work / LARGE, self.work, "ties", "bfloat16", k)
        # `merge --dry-run` would ask for room for the output.
        command = [sys.executable, "-m", "mergeplan", "inspect", str(config)]
        plan = median(run_process(command).seconds for _ in range(3))
        factor = SHAPES[LARGE].n_params / SHAPES[self.report.options.shape].n_params
        self.report.bound = Bound(write, LARGE, plan, factor)

    def _measure_mergekit(self, method: str, k: int) -> None:
        self.tell(f"mergekit {method}, k = {k}")
        config = write_case(self.root, self.work, method, "bfloat16", k)
        try:
            run = self._one_run(mergekit_command, config)
        except SurroundingsError as error:
            # What was measured so far took long enough to be worth showing.
            self.report.notes.append(f"mergekit, `{method}`: {error.message}")
            return
        self.report.measured.append(CaseResult("mergekit", method, "bfloat16", k, (run,)))

    def _one_run(
        self,
        command: Callable[[Path, Path, int], list[str]],
        config: Path,
        variables: Mapping[str, str] | None = None,
    ) -> Run:
        out = self.work / "out"
        run = run_process(command(config, out, self.report.options.threads), variables)
        expected = (self.root / "base" / WEIGHTS_FILE).stat().st_size
        written = sum(path.stat().st_size for path in out.glob("*.safetensors"))
        shutil.rmtree(out)
        # Headers differ by some padding; a contender that wrote less did not do the work.
        if written < 0.99 * expected:
            raise SurroundingsError(f"a measured process wrote {written} of {expected} bytes")
        return run


def _names(k: int) -> list[str]:
    return ["base", *(f"e{i}" for i in range(k))]


def write_case(root: Path, work: Path, method: str, dtype: str, k: int) -> Path:
    """The YAML of a case, for mergeplan and mergekit alike; the output is bfloat16.

    `linear` lists the base too, with weight 0: without it mergekit takes the config of any model.
    """
    parameters: dict[str, Any] = {"weight": 1, **CASES[method]}
    if "normalize" in METHODS[method].options:
        parameters["normalize"] = True
    models: list[dict[str, Any]] = [{"model": str(root / f"e{i}")} for i in range(k)]
    if METHODS[method].base == "none":
        models.insert(0, {"model": str(root / "base"), "parameters": {"weight": 0}})
    config: dict[str, Any] = {
        "merge_method": method,
        "base_model": str(root / "base"),
        "models": models,
        "parameters": parameters,
    }
    if dtype != "bfloat16":
        config |= {"dtype": dtype, "out_dtype": "bfloat16"}
    path = work / f"{method}-{dtype}-{k}.yml"
    path.write_text(json.dumps(config, indent=1), "utf-8")  # JSON is YAML
    return path
