"""How fast is a merge, beside mergekit and beside a plain copy of the same bytes?

    pytest tests/bench/bench_merge.py --benchmark-columns=min,median -s

A synthetic checkpoint of Qwen2.5-0.5B's shape (494 M parameters, bfloat16) and four experts are
made once in the temporary folder (5 GB; `MERGEPLAN_BENCH_DIR` names another place and keeps them).
Every contender is a whole process, started the same way, with the inputs in the page cache. The
ratios stand in `extra_info` and are printed at the end.

mergekit takes some minutes for each method: `-k 'not mergekit'` leaves it out.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

HIDDEN, INTERMEDIATE, LAYERS, VOCABULARY, KEY_VALUE = 896, 4864, 24, 151_936, 128
EXPERTS = 4
THREADS = 2
# mergekit's TIES alone takes longer than the suite's limit for a test.
pytestmark = pytest.mark.timeout(0)
METHODS = {
    "ties": {"density": 0.2},
    "dare_linear": {"density": 0.5},
    "linear": {},
    "task_arithmetic": {},
}
SECONDS: dict[tuple[str, str], float] = {}


def shapes() -> dict[str, list[int]]:
    found = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN]}
    for i in range(LAYERS):
        layer = {
            "input_layernorm.weight": [HIDDEN],
            "post_attention_layernorm.weight": [HIDDEN],
            "mlp.gate_proj.weight": [INTERMEDIATE, HIDDEN],
            "mlp.up_proj.weight": [INTERMEDIATE, HIDDEN],
            "mlp.down_proj.weight": [HIDDEN, INTERMEDIATE],
            "self_attn.q_proj.weight": [HIDDEN, HIDDEN],
            "self_attn.q_proj.bias": [HIDDEN],
            "self_attn.k_proj.weight": [KEY_VALUE, HIDDEN],
            "self_attn.k_proj.bias": [KEY_VALUE],
            "self_attn.v_proj.weight": [KEY_VALUE, HIDDEN],
            "self_attn.v_proj.bias": [KEY_VALUE],
            "self_attn.o_proj.weight": [HIDDEN, HIDDEN],
        }
        found |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return found


CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


def make_model(folder: Path, base: Path | None, seed: int) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    old = load_file(base / "model.safetensors") if base else {}
    tensors = {}
    for name, shape in shapes().items():
        noise = torch.randn(shape, generator=generator)
        value = old[name].float() + 1e-3 * noise if base else 0.02 * noise
        tensors[name] = value.to(torch.bfloat16)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    kept = os.environ.get("MERGEPLAN_BENCH_DIR")
    root = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    names = ["base", *(f"e{i}" for i in range(EXPERTS))]
    for seed, name in enumerate(names):
        if not (root / name / "config.json").exists():
            make_model(root / name, root / "base" if seed else None, seed)
    for name in names:
        read_all(root / name / "model.safetensors")
    return root


def read_all(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def write_config(pool: Path, method: str, dtype: str | None) -> Path:
    options = METHODS[method]
    lines = [f"merge_method: {method}", f"base_model: {pool / 'base'}", "models:"]
    if method == "linear":
        lines += [f"  - model: {pool / 'base'}", "    parameters: {weight: 0}"]
    for i in range(EXPERTS):
        lines += [f"  - model: {pool / f'e{i}'}"]
    parameters = {"weight": 1, "normalize": True, **options}
    lines.append(f"parameters: {json.dumps(parameters)}")
    if dtype:
        lines += [f"dtype: {dtype}", "out_dtype: bfloat16"]
    path = pool / f"{method}-{dtype}.yml"
    path.write_text("\n".join(lines) + "\n")
    return path


def copy_floor(pool: Path, out: Path) -> None:
    """Read every input byte once and write one model, with two threads, and sync it."""
    inputs = [pool / f"e{i}" / "model.safetensors" for i in range(EXPERTS)]
    inputs.append(pool / "base" / "model.safetensors")
    length = inputs[0].stat().st_size
    target = os.open(out, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    piece = 1 << 22

    def half(start: int, end: int) -> None:
        buffer = memoryview(bytearray(piece))
        handles = [os.open(path, os.O_RDONLY) for path in inputs]
        for offset in range(start, end, piece):
            part = buffer[: min(piece, end - offset)]
            for handle in handles:
                os.preadv(handle, [part], offset)
            os.pwrite(target, part, offset)
        for handle in handles:
            os.close(handle)

    middle = length // 2
    threads = [threading.Thread(target=half, args=r) for r in ((0, middle), (middle, length))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fsync(target)
    os.close(target)


def run(command: list[str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def remove(out: Path) -> None:
    if out.is_dir():
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
    elif out.exists():
        out.unlink()


def record(benchmark, key: tuple[str, str]) -> None:
    SECONDS[key] = benchmark.stats.stats.median


def test_plain_copy(benchmark, pool):
    out = pool / "out-copy"
    benchmark.pedantic(
        copy_floor, args=(pool, out), setup=lambda: remove(out), rounds=3, warmup_rounds=1
    )
    record(benchmark, ("copy", ""))
    remove(out)


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_mergeplan(benchmark, pool, method, dtype):
    out = pool / "out-mergeplan"
    config = write_config(pool, method, dtype)
    command = [sys.executable, "-m", "mergeplan", "merge", str(config), str(out), "-q"]
    benchmark.pedantic(
        run,
        args=([*command, "--threads", str(THREADS)],),
        setup=lambda: remove(out),
        rounds=3,
        warmup_rounds=1,
    )
    record(benchmark, (method, dtype or "bfloat16"))
    if ("copy", "") in SECONDS:
        ratio = SECONDS[method, dtype or "bfloat16"] / SECONDS["copy", ""]
        benchmark.extra_info["times_copy"] = ratio
    assert (out / "model.safetensors").stat().st_size > 900_000_000
    remove(out)


@pytest.mark.parametrize("method", METHODS)
def test_mergekit(benchmark, pool, method):
    out = pool / "out-mergekit"
    config = write_config(pool, method, None)
    main = "from mergekit.scripts.run_yaml import main; main()"
    command = [sys.executable, "-c", main, str(config), str(out), "--quiet"]
    benchmark.pedantic(run, args=(command,), setup=lambda: remove(out), rounds=1)
    record(benchmark, (method, "mergekit"))
    assert (out / "model.safetensors").exists()
    remove(out)


@pytest.fixture(scope="session", autouse=True)
def table():
    yield
    floor = SECONDS.get(("copy", ""))
    print("\n\nmethod           dtype     seconds  x copy  times faster than mergekit")
    for (method, dtype), seconds in SECONDS.items():
        slow = SECONDS.get((method, "mergekit"))
        over = f"{seconds / floor:7.2f}" if floor else "      -"
        faster = f"{slow / seconds:7.1f}" if slow and dtype != "mergekit" else "      -"
        print(f"{method:16} {dtype:9} {seconds:7.2f} {over} {faster}")
