"""Models that cannot be opened."""

import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


def reshard(bench: Bench, shards: int) -> None:
    """Write `b` again in several files."""
    folder = bench.folder / "b"
    tensors = load_tensors(folder)
    shutil.rmtree(folder)
    save_checkpoint(folder, tensors, shards=shards)


@produces("`FILE`: N of its N files are not there, such as `SHARD`")
def missing_shard(bench: Bench) -> Done:
    reshard(bench, 3)
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


@produces("`FILE`: `quantization_config`: expected none, or fp8 with scales, found …")
def quantised(bench: Bench) -> Done:
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    bench.settings("config.json", quantization_config=settings)
    return bench.merge()


@produces("`FOLDER` holds weights in llama.cpp's format, GGUF: `FILE`")
def gguf(bench: Bench) -> Done:
    bench.weights.rename(bench.weights.with_name("model-Q4_K_M.gguf"))
    return bench.merge()


@produces("`FOLDER` holds no model itself, but training checkpoints: …")
def training(bench: Bench) -> Done:
    shutil.copytree(bench.folder / "a", bench.folder / "b" / "checkpoint-500")
    bench.weights.unlink()
    return bench.merge()


class Refuses(BaseHTTPRequestHandler):
    """A hub that gives a model only to those whom its owner knows."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@produces("model `NAME` is gated: the hub gives it to those alone who accepted its conditions")
def gated(bench: Bench) -> Done:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bench.patch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    bench.patch.setattr(constants, "HF_HUB_OFFLINE", False)
    bench.patch.setattr(constants, "HF_HUB_CACHE", str(bench.folder / "cache"))
    try:
        return bench.edit("model: b", "model: organisation/model")
    finally:
        server.shutdown()
        server.server_close()
