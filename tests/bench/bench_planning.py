"""`mergeplan inspect` of a base and four experts of DeepSeek-V3's layout, 671 B parameters each.

    pytest tests/bench/bench_planning.py -s

Headers and index are whole, the weights are holes that take no room on the disk: 90,427 tensors a
model in fp8 with scales, in 163 files, and 45,395 in bfloat16. Printed are the seconds of whole
processes, in turns with a process that does nothing, their CPU seconds and the peak of resident
memory. To time another state of the code, put its `python` folder on PYTHONPATH.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROUNDS = 3
FILES = 163
LAYERS, DENSE, EXPERTS = 61, 3, 256
HIDDEN, INTERMEDIATE, OF_AN_EXPERT, VOCABULARY = 7168, 18432, 2048, 129280
BLOCK = 128
BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1}
ATTENTION = {
    "q_a_proj": (1536, HIDDEN),
    "q_b_proj": (24576, 1536),
    "kv_a_proj_with_mqa": (576, HIDDEN),
    "kv_b_proj": (32768, 512),
    "o_proj": (HIDDEN, 16384),
}
Header = dict[str, tuple[str, tuple[int, ...]]]
pytestmark = pytest.mark.timeout(0)


def mlp(inner: int) -> dict[str, tuple[int, int]]:
    wide = (inner, HIDDEN)
    return {"gate_proj": wide, "up_proj": wide, "down_proj": (HIDDEN, inner)}


def layer(number: int, fp8: bool) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    matrices = {f"self_attn.{name}": shape for name, shape in ATTENTION.items()}
    yield "input_layernorm.weight", "BF16", (HIDDEN,)
    yield "post_attention_layernorm.weight", "BF16", (HIDDEN,)
    yield "self_attn.q_a_layernorm.weight", "BF16", (1536,)
    yield "self_attn.kv_a_layernorm.weight", "BF16", (512,)
    if number < DENSE:
        matrices |= {f"mlp.{name}": shape for name, shape in mlp(INTERMEDIATE).items()}
    else:
        yield "mlp.gate.weight", "BF16", (EXPERTS, HIDDEN)
        yield "mlp.gate.e_score_correction_bias", "F32", (EXPERTS,)
        for expert in ("shared_experts", *(f"experts.{n}" for n in range(EXPERTS))):
            matrices |= {f"mlp.{expert}.{k}": shape for k, shape in mlp(OF_AN_EXPERT).items()}
    for name, (rows, columns) in matrices.items():
        yield f"{name}.weight", "F8_E4M3" if fp8 else "BF16", (rows, columns)
        if fp8:
            scales = (-(-rows // BLOCK), -(-columns // BLOCK))
            yield f"{name}.weight_scale_inv", "F32", scales


def tensors(fp8: bool) -> Header:
    found: Header = {"model.embed_tokens.weight": ("BF16", (VOCABULARY, HIDDEN))}
    for number in range(LAYERS):
        for name, dtype, shape in layer(number, fp8):
            found[f"model.layers.{number}.{name}"] = dtype, shape
    found["model.norm.weight"] = "BF16", (HIDDEN,)
    found["lm_head.weight"] = "BF16", (VOCABULARY, HIDDEN)
    return found


def write_model(folder: Path, header: Header, fp8: bool) -> None:
    """A checkpoint whose weights are holes."""
    folder.mkdir()
    names = list(header)
    each = -(-len(names) // FILES)
    weight_map = {}
    for number in range(FILES):
        file = f"model-{number + 1:05}-of-{FILES:05}.safetensors"
        entries, end = {}, 0
        for name in names[number * each : (number + 1) * each]:
            dtype, shape = header[name]
            count = BYTES[dtype]
            for side in shape:
                count *= side
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + count]}
            weight_map[name] = file
            end += count
        text = json.dumps(entries).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            out.truncate(8 + len(text) + end)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "vocab_size": VOCABULARY,
        "torch_dtype": "bfloat16",
    }
    if fp8:
        blocks = [BLOCK, BLOCK]
        config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": blocks}
    (folder / "config.json").write_text(json.dumps(config))


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak of resident memory in MB of one process."""
    code = (
        "import resource, subprocess, sys, time; t = time.perf_counter();"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
        "t = time.perf_counter() - t; r = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(t, r.ru_utime + r.ru_stime, r.ru_maxrss / 1000)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    seconds, cpu, peak = map(float, run.stdout.split())
    return seconds, cpu, peak


@pytest.mark.parametrize("fp8", [True, False], ids=["fp8", "bf16"])
def test_a_base_and_four_experts_of_671_billion_parameters(tmp_path, fp8):
    header = tensors(fp8)
    for name in ("base", *(f"e{n}" for n in range(4))):
        write_model(tmp_path / name, header, fp8)
    config = tmp_path / "c.yml"
    config.write_text(
        f"merge_method: ties\nbase_model: {tmp_path}/base\n"
        "parameters: {density: 0.2, weight: 1}\n"
        "models:\n" + "".join(f"- model: {tmp_path}/e{n}\n" for n in range(4))
    )
    commands = {
        "nothing": [sys.executable, "-c", "pass"],
        "inspect": [sys.executable, "-m", "mergeplan", "inspect", str(config)],
    }
    found = {name: [measured(command) for _ in range(ROUNDS)] for name, command in commands.items()}
    print(f"\n{len(header)} tensors a model, on {os.cpu_count()} cores")
    for name, runs in found.items():
        seconds, cpu, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"{name}: {seconds:.2f} s, {cpu:.2f} CPU s, {peak:.0f} MB")
