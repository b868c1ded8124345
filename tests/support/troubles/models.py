"""Models that cannot be opened."""

import os
import shutil
from typing import Any

import torch

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.commands import Done
from tests.support.troubles.bench import Bench, produces

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 325104\n"


@produces("model `NAME` is not a folder, and not in the hub's cache")
def not_here(bench: Bench) -> Done:
    return bench.edit("model: b", "model: organisation/model")


@produces("no safetensors checkpoint in `FOLDER`: expected `FILE` or `FILE`")
def no_weights(bench: Bench) -> Done:
    bench.weights.unlink()
    return bench.merge()


@produces("`FILE`: expected weights, found a git-lfs pointer: the weights were not fetched")
def pointer(bench: Bench) -> Done:
    bench.weights.write_text(POINTER)
    return bench.merge()


@produces("`FILE`: the header describes a file of N bytes, found N bytes")
def cut_short(bench: Bench) -> Done:
    bench.weights.write_bytes(bench.weights.read_bytes()[:-1000])
    return bench.merge()


@produces(
    "`FILE`: header length is N bytes, but the file has N bytes in all and a header at most N"
)
def no_header(bench: Bench) -> Done:
    bench.weights.write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    return bench.merge()


@produces("`FILE`: N of its N files are not there, such as `SHARD`")
def missing_shard(bench: Bench) -> Done:
    tensors = load_tensors(bench.folder / "b")
    shutil.rmtree(bench.folder / "b")
    save_checkpoint(bench.folder / "b", tensors, shards=3)
    (bench.folder / "b" / "model-00002-of-00003.safetensors").unlink()
    return bench.merge()


class RunsCode:
    """What an attacker would pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@produces("cannot read `FILE`: it names `FUNCTION`, which is not read: that may run code")
def pickled(bench: Bench) -> Done:
    bench.weights.unlink()
    torch.save({"x": torch.ones(2), "y": RunsCode()}, bench.folder / "b" / "pytorch_model.bin")
    return bench.merge()
