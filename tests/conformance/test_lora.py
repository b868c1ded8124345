"""LoRA experts that stream: beside peft's `merge_and_unload`, and beside a merged copy."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mergeplan.config.config import parse_config
from mergeplan.errors import InputError, MergeplanError
from mergeplan.merging.merge import MergeReport, merge_many
from mergeplan.merging.options import MergeOptions, MergeRequest
from mergeplan.merging.torch.device import Device
from mergeplan.merging.torch.device_runner import DeviceRunner
from tests.support.checkpoints import load_tensors, weights_of
from tests.support.merges import config_text, run_mergekit, run_mergeplan
from tests.support.shares import paired, spread

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What LoraConfig is given, by name of the kind.
KINDS = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": LINEAR},
    "rslora": {"r": 9, "lora_alpha": 4, "target_modules": LINEAR, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 4,
        "target_modules": LINEAR,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7},
        "alpha_pattern": {"layers.0.self_attn.v_proj": 20, "down_proj": 3},
    },
    "some layers": {
        "r": 3,
        "lora_alpha": 7,
        "target_modules": ["q_proj"],
        "layers_to_transform": 1,
    },
    "saved modules": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": LINEAR,
        "modules_to_save": ["lm_head", "input_layernorm"],
    },
    "embedding": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "q_proj", "lm_head"]},
    "bias": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "all"},
}
# A unit of the last place, at most, of a number near 1.
EPSILON = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 2**-20}
METHODS = {
    "ties": {"weight": 0.7, "density": 0.4},
    "dare_ties": {"weight": 0.7, "density": 0.4},
    "breadcrumbs": {"weight": 0.7, "density": 0.4},
    "linear": {"weight": 0.7},
    "task_arithmetic": {"weight": 0.7},
    "della": {"weight": 0.7, "density": 0.4},
    "model_stock": {},
    "sce": {"select_topk": 0.5},
    "karcher": {},
}


def make_base(folder: Path, dtype: torch.dtype = torch.bfloat16, **changes) -> Path:
    """A small Qwen2, whose attention has biases."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    settings = {
        "vocab_size": 50,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**(settings | changes))).to(dtype)
    model.save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, seed: int = 0, **settings) -> Path:
    """An adapter as peft saves it, with factors that have learned something."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed + 1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.05)
            elif parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says that it saves the embedding too
        adapted.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path, folder: Path) -> Path:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    return folder


def copied(model: str, folder: Path, **options) -> dict[str, torch.Tensor]:
    """A model as mergeplan reads it."""
    run_mergeplan(config_text("passthrough", [model]), folder, **options)
    return load_tensors(folder)


def ulps(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference in units of the expected value's last place."""
    expected64 = expected.double().numpy()
    mantissa = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24}[expected.dtype]
    place = 2.0 ** (np.frexp(expected64)[1] - mantissa)
    return float((np.abs(found.double().numpy() - expected64) / place).max(initial=0))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    paired(list(KINDS), [torch.bfloat16, torch.float16, torch.float32]),
    ids=str,
)
def test_an_adapted_base_is_what_peft_merges(kind, dtype, tmp_path):
    base = make_base(tmp_path / "base", dtype)
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS[kind])
    expected = load_tensors(merged_by_peft(base, adapter, tmp_path / "theirs"))
    found = copied(f"{base}+{adapter}", tmp_path / "ours")
    assert found.keys() == expected.keys()
    changed = 0
    before = load_tensors(base)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        # In 16 bits peft rounds the update before it is added, which shows where both cancel.
        near = tensor.abs() >= (tensor - before[name]).abs() / 2
        assert ulps(found[name][near], tensor[near]) <= (1 if dtype != torch.float32 else 8), name
        size = tensor.abs().float() + (tensor - before[name]).abs().float()
        assert ((found[name].float() - tensor.float()).abs() <= EPSILON[dtype] * size).all(), name
        changed += int((tensor != before[name]).any())
    assert changed >= 1


def test_layers_that_are_stored_the_other_way_round(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    settings = {"vocab_size": 40, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**settings, tie_word_embeddings=False))
    model.save_pretrained(tmp_path / "base")
    adapter = make_adapter(
        tmp_path / "base",
        tmp_path / "adapter",
        r=3,
        lora_alpha=9,
        target_modules=["c_attn", "c_proj"],
        fan_in_fan_out=True,
    )
    expected = load_tensors(merged_by_peft(tmp_path / "base", adapter, tmp_path / "theirs"))
    found = copied(f"{tmp_path / 'base'}+{adapter}", tmp_path / "ours")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-7, rtol=1e-6), name


@pytest.mark.parametrize("method", spread(list(METHODS), 5))
def test_every_method_sees_what_a_merged_copy_holds(method, tmp_path):
    """Byte for byte, random masks among them."""
    base = make_base(tmp_path / "base")
    names, copies = [], []
    for seed in range(2):
        adapter = make_adapter(base, tmp_path / f"adapter{seed}", seed, **KINDS["plain"])
        names.append(f"{base}+{adapter}")
        copied(names[-1], tmp_path / f"copy{seed}")
        copies.append(tmp_path / f"copy{seed}")
    for models, out in ((names, "streamed"), (copies, "stored")):
        text = config_text(method, models, base=base, parameters=METHODS[method])
        run_mergeplan(text, tmp_path / out)
    streamed, stored = (load_tensors(tmp_path / out) for out in ("streamed", "stored"))
    assert streamed.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(streamed[name], tensor), name


def test_ties_of_adapters_agrees_with_mergekits_way(tmp_path):
    """peft's copies merged by mergekit: 1 ULP of x, few elements across the trim."""
    base = make_base(tmp_path / "base")
    names, copies = [], []
    for seed in range(3):
        adapter = make_adapter(base, tmp_path / f"adapter{seed}", seed, **KINDS["plain"])
        names.append(f"{base}+{adapter}")
        copies.append(merged_by_peft(base, adapter, tmp_path / f"copy{seed}"))
    parameters = {"weight": 1.0, "density": 0.3}
    run_mergeplan(config_text("ties", names, base=base, parameters=parameters), tmp_path / "ours")
    run_mergekit(config_text("ties", copies, base=base, parameters=parameters), tmp_path / "theirs")
    found, expected = load_tensors(tmp_path / "ours"), load_tensors(tmp_path / "theirs")
    total = sum(tensor.numel() for tensor in expected.values())
    flips = sum(
        int(((found[name] - tensor).abs() > 0.01 * tensor.abs().max()).sum())
        for name, tensor in expected.items()
    )
    assert flips <= 0.1 * total
    same = sum(int((found[name] == tensor).sum()) for name, tensor in expected.items())
    assert same >= 0.85 * total


def test_exact_sums_keep_what_rounding_loses(tmp_path):
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **(KINDS["plain"] | {"lora_alpha": 0.02}))
    name = f"{base}+{adapter}"
    before = load_tensors(base)["model.layers.0.mlp.up_proj.weight"]
    text = config_text("task_arithmetic", [name], base=base, parameters={"weight": 1000.0})
    run_mergeplan(text, tmp_path / "rounded")
    run_mergeplan(text, tmp_path / "exact", lora_exact=True)
    rounded, exact = (
        load_tensors(tmp_path / out)["model.layers.0.mlp.up_proj.weight"]
        for out in ("rounded", "exact")
    )
    assert exact.dtype == rounded.dtype == torch.bfloat16
    factors = load_tensors(adapter)
    place = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    a, b = (factors[place.format(side)].double() for side in "AB")
    expected = before.double() + 1000 * (0.02 / 4) * (b @ a)
    error = (exact.double() - expected).abs().max()
    assert error <= 2.0**-8 * expected.abs().max()
    assert (rounded.double() - expected).abs().max() > 4 * error


def test_the_sum_can_be_rounded_to_another_dtype(tmp_path):
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    name = f"{base}+{adapter}"
    wide = copied(name, tmp_path / "wide", lora_merge_dtype="float32")
    narrow = copied(name, tmp_path / "narrow")
    key = "model.layers.0.mlp.up_proj.weight"
    assert (wide[key].dtype, narrow[key].dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(wide[key].bfloat16(), narrow[key])


def test_an_adapter_alone_is_added_to_the_base_that_it_names(tmp_path):
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    both, alone = copied(f"{base}+{adapter}", tmp_path / "1"), copied(str(adapter), tmp_path / "2")
    assert all(torch.equal(both[name], alone[name]) for name in both)
    manifest = json.loads((tmp_path / "2" / "mergeplan_manifest.json").read_text())
    files = {Path(file["path"]).name for one in manifest["inputs"] for file in one["files"]}
    assert files == {"model.safetensors", "adapter_model.safetensors"}


REFUSED = {
    "dora": ({"use_dora": True}, "use_dora"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    "lora bias": ({"lora_bias": True}, "lora_bias"),
    "another kind": ({"peft_type": "LOHA"}, "peft_type"),
    "another rank": ({"r": 5}, "expected rank 5 as `r`"),
    "no rank": ({"r": None}, "expected the rank as `r`, found none, and factors of"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha"),
    "a huge alpha": ({"lora_alpha": 10**39}, "expected a number that fits float32"),
    "a pattern that is none": ({"rank_pattern": {"(": 3}}, "no pattern"),
    "a pattern that grows": ({"alpha_pattern": {"((a{100}){100}){100}": 3}}, "too large a pattern"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_merged_wrongly_is_refused(case, tmp_path):
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    changes, named = REFUSED[case]
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=named) as caught:
        copied(f"{base}+{adapter}", tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_factors_of_rank_0_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    file, path = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    empty = {name: t[:0] if "lora_A" in name else t[:, :0] for name, t in load_file(file).items()}
    save_file({name: tensor.contiguous() for name, tensor in empty.items()}, file)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 0}))
    with pytest.raises(InputError, match="rank 1 or more, found 0"):
        copied(f"{base}+{adapter}", tmp_path / "out")


def test_another_base_or_a_damaged_adapter_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    base = make_base(tmp_path / "base")
    other = make_base(tmp_path / "other", hidden_size=32)
    shallow = make_base(tmp_path / "shallow", num_hidden_layers=1)
    tied = make_base(tmp_path / "tied", tie_word_embeddings=True)
    adapter = make_adapter(base, tmp_path / "adapter", **KINDS["plain"])
    embedding = make_adapter(base, tmp_path / "embedding", **KINDS["embedding"])
    for model, words in (
        (f"{other}+{adapter}", "expected shapes whose product"),
        (f"{shallow}+{adapter}", "which `.*` does not have"),
        (f"{tied}+{embedding}", "ties to `model.embed_tokens"),
        (f"{base}+{tmp_path / 'nothing'}", "nothing"),
        (f"{base}+{base}", "adapter_config.json"),
    ):
        with pytest.raises(MergeplanError, match=words):
            copied(model, tmp_path / "out")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    factor = f"safetensors`: tensor `{name.replace('lora_B', 'lora_A')}`: .* found no factor B"
    with pytest.raises(InputError, match=factor) as caught:
        copied(f"{base}+{adapter}", tmp_path / "out")
    assert caught.value.hint
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(InputError, match="not finite|NaN"):
        copied(f"{base}+{adapter}", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapters_in_a_merge_that_mergekit_plans(zoo, tmp_path):
    """A union of vocabularies: rows of adapted embeddings, by the core and on a device."""
    base, other = zoo / "words" / "base", zoo / "words" / "a"
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "q_proj", "up_proj"]}
    adapter = make_adapter(base, tmp_path / "adapter", **settings)
    name = f"{base}+{adapter}"
    copied(name, tmp_path / "copy")
    for file in base.glob("*token*"):
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    for model, out in ((name, "streamed"), (tmp_path / "copy", "stored")):
        text = config_text(
            "ties",
            [model, other],
            base=base,
            parameters={"weight": 0.6, "density": 0.5},
            tokenizer_source="union",
        )
        run_mergeplan(text, tmp_path / out)
        report = on_a_device(text, tmp_path / f"{out}-device")
        assert report.device_bytes > report.written_bytes / 2
        assert weights_of(tmp_path / f"{out}-device") == weights_of(tmp_path / out)
    streamed, stored = (load_tensors(tmp_path / out) for out in ("streamed", "stored"))
    assert streamed.keys() == stored.keys()
    for key, tensor in stored.items():
        assert torch.equal(streamed[key], tensor), key


def on_a_device(text: str, out: Path, **options) -> MergeReport:
    """Merge all tensors, the smallest too, with torch."""
    runner = DeviceRunner([Device("cpu", 16 << 20)], least_elements=1)
    wanted = [MergeRequest(parse_config(text), out)]
    return merge_many(wanted, MergeOptions(**options), runner=runner)[0]


@pytest.mark.parametrize("exact", [False, True], ids=["rounded", "exact"])
def test_devices_see_the_same_adapters(tmp_path, exact):
    base = make_base(tmp_path / "base")
    models = []
    for seed, name in enumerate("ab"):
        adapter = make_adapter(base, tmp_path / name, seed, **KINDS["plain"])
        models.append(f"{base}+{adapter}")
    for method in ("ties", "dare_ties", "linear", "karcher"):
        needs_base = method in ("ties", "dare_ties")
        per_model = [METHODS[method]] * 2
        text = config_text(method, models, base=base if needs_base else None, per_model=per_model)
        core, device = tmp_path / f"core-{method}", tmp_path / f"device-{method}"
        run_mergeplan(text, core, lora_exact=exact)
        report = on_a_device(text, device, lora_exact=exact)
        assert report.device_bytes > report.written_bytes / 2
        assert weights_of(device) == weights_of(core), method


def test_what_was_trained_wins_over_the_untrained_copy_and_never_by_order(tmp_path):
    """What `original_module` holds beside `modules_to_save` is the base's own (peft #2018)."""
    from safetensors.torch import save_file

    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "plain", modules_to_save=["lm_head"], r=4)
    expected = copied(f"{base}+{adapter}", tmp_path / "expected")
    tensors = load_tensors(adapter)
    trained = tensors.pop("base_model.model.lm_head.weight")
    untrained = torch.zeros_like(trained)
    for number, names in enumerate(
        (
            ("modules_to_save", "original_module"),
            ("modules_to_save.default", "original_module"),
            ("modules_to_save", None),
        )
    ):
        folder = tmp_path / f"both{number}"
        shutil.copytree(adapter, folder)
        both = dict(zip(names, (trained, untrained), strict=True))
        more = {f"base_model.model.lm_head.{n}.weight": t for n, t in both.items() if n}
        save_file({**tensors, **more}, folder / "adapter_model.safetensors")
        found = copied(f"{base}+{folder}", tmp_path / f"out{number}")
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    plain, saved = (f"base_model.model.lm_head.{n}weight" for n in ("", "modules_to_save."))
    file = tmp_path / "both0" / "adapter_model.safetensors"
    save_file({**tensors, plain: trained.clone(), saved: trained}, file)
    found = copied(f"{base}+{tmp_path / 'both0'}", tmp_path / "alike")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    save_file({**tensors, plain: untrained, saved: trained}, file)
    with pytest.raises(InputError, match="stand for one tensor of the base, and differ"):
        copied(f"{base}+{tmp_path / 'both0'}", tmp_path / "refused")


def test_a_pool_whose_experts_are_adapters(tmp_path):
    """Emitted configs name base and adapter, and sweep to what a merge writes."""
    from mergeplan.merging.streaming import Sweep
    from mergeplan.pool.pool import load_pool
    from mergeplan.pool.subsets import subset_merge

    base = make_base(tmp_path / "base")
    for seed in range(3):
        make_adapter(base, tmp_path / f"l{seed}", seed, **KINDS["plain"])
    experts = ", ".join(f"l{seed}: l{seed}" for seed in range(3))
    pool_file = tmp_path / "POOL.yml"
    pool_file.write_text(
        f"sizes: [{{base: base, experts: {{{experts}}}}}]\nmethods: {{ties: {{}}}}"
    )
    pool = load_pool(pool_file)
    merge = subset_merge(pool, 0, "ties", ["l0", "l2"])
    text = yaml.safe_dump(merge.config(pool))
    assert f"{base}+{tmp_path / 'l2'}" in text
    found = []
    for exact in (False, True):
        run_mergeplan(text, tmp_path / f"out-{exact}", lora_exact=exact)
        written = load_tensors(tmp_path / f"out-{exact}")
        streamed = dict(Sweep([merge.config(pool)], MergeOptions(lora_exact=exact)).stream(0))
        assert streamed.keys() == written.keys()
        assert all(torch.equal(streamed[name], tensor) for name, tensor in written.items())
        found.append(streamed)
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
