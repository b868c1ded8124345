"""What the machine, or its Python, does not have."""

import importlib.metadata
import resource
import sys
from collections.abc import Callable
from typing import Any

import torch

from mergeplan.evaluation import scoring
from tests.support import runs
from tests.support.commands import Done
from tests.support.troubles.bench import CONFIG, Bench, produces
from tests.support.troubles.mismatches import evaluate
from tests.support.troubles.models import reshard
from tests.support.troubles.tables import ALL, HEAD, PAIRS, SINGLES, ask


def without(bench: Bench, *packages: str) -> None:
    """As where these packages are not installed."""
    for package in packages:
        for name in [*sys.modules, package]:
            if name == package or name.startswith(f"{package}."):
                bench.patch.setitem(sys.modules, name, None)


@produces("drawing needs matplotlib")
def no_matplotlib(bench: Bench) -> Done:
    without(bench, "matplotlib")
    return ask(bench, "plot", HEAD + SINGLES + PAIRS + ALL, "-o", "law.png")


@produces("tasks need lm-evaluation-harness: …")
def no_harness(bench: Bench) -> Done:
    without(bench, "lm_eval")
    return bench.run("evaluate", "a", "--tasks", "arc_easy")


@produces("evaluating needs torch and transformers: …")
def no_transformers(bench: Bench) -> Done:
    without(bench, "transformers")
    return evaluate(bench)


@produces("… needs mergekit, which is not installed")
def no_mergekit(bench: Bench) -> Done:
    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    bench.patch.setattr(importlib.metadata, "version", version)
    return bench.merge(text=f"{CONFIG}tokenizer_source: union\n")


@produces("running on Ray needs the package `ray`")
def no_ray(bench: Bench) -> Done:
    without(bench, "ray")
    return bench.merge("--ray", "local")


@produces("device `NAME`: torch finds no GPU")
def no_gpu(bench: Bench) -> Done:
    bench.patch.setattr(torch.cuda, "is_available", lambda: False)
    return bench.merge("--device", "cuda")


@produces("device `NAME`: the VRAM limit is N MiB, and N MiB are free")
def full_gpu(bench: Bench) -> Done:
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "mem_get_info": lambda _: (3 << 30, 80 << 30),
        "memory_reserved": lambda _: 0,
        "get_per_process_memory_fraction": lambda _: 1.0,
    }
    for name, answer in cuda.items():
        bench.patch.setattr(torch.cuda, name, answer)
    return bench.merge("--device", "cuda", "--vram-limit", "8GiB")


@produces("too few files may be open at a time: expected N or more, found N")
def few_files(bench: Bench) -> Done:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

    reshard(bench, 20)
    ended = runs.end(runs.start(bench.folder, fresh=True, first=limit))
    return Done([], ended.code, ended.stdout, ended.stderr)


def where_it_scores(bench: Bench, fails: Callable[..., Any]) -> Done:
    """Evaluate, and fail where the logits are in memory."""
    bench.patch.setattr(scoring, "_nll", fails)
    return evaluate(bench)


@produces("the GPU has too little memory: CUDA out of memory. …")
def out_of_gpu_memory(bench: Bench) -> Done:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 18.55 GiB.")

    return where_it_scores(bench, fails)


@produces("the system gives no more memory")
def out_of_memory(bench: Bench) -> Done:
    return where_it_scores(bench, lambda *_: torch.empty(10**15))
