"""`mergeplan extract-lora` as a user meets it: what it writes peft loads and merges."""

import json
import shutil

import numpy as np
import pytest
import torch

from mergeplan.cli.documents import VERSIONS
from tests.support.checkpoints import load_tensors
from tests.support.commands import cli
from tests.support.documents import check_document


def _write(folder, model, seed):
    """A base, and what training would make of it: low ranks and a little of everything."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random)

    model.save_pretrained(folder / "base")
    for number, parameter in enumerate(model.parameters()):
        rank = 3 + number % 4
        noise = 1e-4 * draw(*parameter.shape)
        if parameter.dim() == 2:
            noise += 0.002 * draw(parameter.shape[0], rank) @ draw(rank, parameter.shape[1])
        parameter.data += noise
    model.save_pretrained(folder / "tuned")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        hidden_size=96,
        intermediate_size=200,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
    )
    _write(folder, LlamaForCausalLM(config), 1)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(
        n_embd=48,
        n_layer=2,
        n_head=4,
        vocab_size=90,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    _write(folder, GPT2LMHeadModel(config), 2)
    return folder


def extract(folder, out, *words):
    done = cli("extract-lora", "tuned", "--base", "base", "-o", out, "--json", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return check_document(done.stdout)


def by_peft(folder, out):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    return PeftModel.from_pretrained(base, folder / out).merge_and_unload().state_dict()


def check_errors(found, folder, merged):
    """Each layer is as far off as was said; of the rest only what was saved has changed."""
    base, tuned = load_tensors(folder / "base"), load_tensors(folder / "tuned")
    for layer in found["layers"]:
        delta = (tuned[layer["tensor"]] - base[layer["tensor"]]).double()
        rest = (tuned[layer["tensor"]] - merged[layer["tensor"]]).double()
        assert layer["norm"] == pytest.approx(float(delta.norm()), rel=1e-5)
        assert float(rest.norm() / delta.norm()) == pytest.approx(
            layer["error"], rel=0.01, abs=1e-4
        )
    for left in found["left_out"]:
        whole = tuned if left["reason"] == "saved whole" else base
        assert torch.equal(merged[left["tensor"]], whole[left["tensor"]])


@pytest.mark.parametrize(
    "words",
    [
        ("--rank", 3),
        ("--energy", 0.95, "--save-module", "embed_tokens"),
        ("--max-error", 0.3, "--dtype", "bfloat16"),
    ],
    ids=lambda words: words[0],
)
def test_merged_back_by_peft_and_by_us_it_is_the_model_within_the_error(llama, words, tmp_path):
    out = f"by{words[0]}"
    found = extract(llama, out, *words)
    assert len(found["layers"]) == 14
    check_errors(found, llama, by_peft(llama, out))
    config = {"merge_method": "passthrough", "models": [{"model": f"base+{out}"}]}
    (llama / "back.yml").write_text(json.dumps(config))
    done = cli("merge", "back.yml", tmp_path / "back", cwd=llama)
    assert done.returncode == 0, done.stderr
    check_errors(found, llama, load_tensors(tmp_path / "back"))
    for layer in found["layers"]:
        delta = (load_tensors(llama / "tuned")[layer["tensor"]]).double()
        delta -= load_tensors(llama / "base")[layer["tensor"]].double()
        shares = np.linalg.svd(delta.numpy(), compute_uv=False) ** 2
        least = np.sqrt(shares[layer["rank"] :].sum() / shares.sum())
        assert least * 0.999 <= layer["error"] <= least * 1.001 + 0.005


def test_ranks_that_differ_are_patterns_and_conv1d_is_transposed(gpt2):
    found = extract(gpt2, "ranks", "--max-error", 0.03)
    config = json.loads((gpt2 / "ranks" / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True
    assert len({layer["rank"] for layer in found["layers"]}) > 1
    assert config["rank_pattern"] == config["alpha_pattern"] != {}
    check_errors(found, gpt2, by_peft(gpt2, "ranks"))


def test_the_file_does_not_depend_on_threads(llama):
    files = set()
    for threads in (1, 2, 7):
        extract(llama, f"threads{threads}", "--rank", 4, "--threads", threads)
        files.add((llama / f"threads{threads}" / "adapter_model.safetensors").read_bytes())
    assert len(files) == 1


def test_the_table_says_what_is_left_out(llama):
    done = cli("extract-lora", "tuned", "--base", "base", "-o", "told", "--rank", 2, cwd=llama)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["tensor", "shape", "rank", "norm", "relative", "error"]
    assert any(row.startswith("lm_head.weight ") and "embedding or head" in row for row in rows)
    assert "14 layers, ranks 2 to 2" in rows[-1]
    assert VERSIONS["extract_lora"] == 1


def refused(folder, *words):
    """What is said; nothing is there that was not before."""
    before = sorted(path.name for path in folder.iterdir())
    done = cli("extract-lora", *words, cwd=folder)
    assert done.returncode in (1, 2), done.stdout
    assert sorted(path.name for path in folder.iterdir()) == before
    return done.stderr


def test_what_does_not_fit_is_refused_and_nothing_published(llama, gpt2, tmp_path):
    from transformers import AutoModelForCausalLM

    def told(model, base, *words):
        return refused(tmp_path, model, "--base", base, "-o", "out", *(words or ("--rank", 2)))

    base, tuned = llama / "base", llama / "tuned"
    assert "there is nothing to extract" in told(base, base)
    shutil.copytree(base, tmp_path / "same")
    assert "there is nothing to extract" in told("same", base)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    assert "model.layers.1.mlp.up_proj.weight" in told("nan", base)
    assert "c_attn" in told(tuned, gpt2 / "base") or "error" in told(tuned, gpt2 / "base")
    model.config.intermediate_size = 160
    type(model)(model.config).save_pretrained(tmp_path / "narrow")
    assert "shape" in told("narrow", base)
    assert "full rank" in told(tuned, base, "--max-error", "1e-6", "--dtype", "bfloat16")
    assert "no module is called so" in told(tuned, base, "--rank", 2, "--save-module", "embed")
    assert "give one of" in told(tuned, base, "--rank", 2, "--energy", 0.5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "not empty" in told(tuned, base)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    assert "lies inside input" in refused(
        tmp_path, tuned, "--base", base, "-o", base / "lora", "--rank", 2
    )


def test_an_svd_that_does_not_converge_is_named(llama, monkeypatch, tmp_path):
    import scipy.linalg

    from mergeplan.errors import InputError
    from mergeplan.extraction.extract import Wanted, extract
    from mergeplan.merging.options import MergeOptions

    def fail(*_args, **_kwargs):
        raise np.linalg.LinAlgError("it does not")

    monkeypatch.setattr(scipy.linalg, "svd", fail)
    monkeypatch.setattr(scipy.linalg, "eigh", fail)
    with pytest.raises(InputError, match=r"tensor `model\.layers.*does not converge"):
        extract(
            str(llama / "tuned"),
            str(llama / "base"),
            tmp_path / "x",
            Wanted(rank=2),
            MergeOptions(),
        )
    assert not list(tmp_path.iterdir())
