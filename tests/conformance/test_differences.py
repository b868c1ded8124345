"""Where mergekit stops and mergeplan merges; each is a row of the table in docs/agreement.md."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.checkpoints import load_tensors, save_checkpoint
from tests.support.merges import config_text, run_mergekit, run_mergeplan
from tests.support.whole import use_hub_cache


def average(first: Path, second: Path, folder: Path, **top: object) -> Path:
    """A mean of two models by mergeplan, of which mergekit makes none."""
    text = config_text("linear", [first, second], parameters={"weight": 0.5}, **top)
    with pytest.raises((RuntimeError, TypeError)):
        run_mergekit(text, folder / "theirs")
    run_mergeplan(text, folder / "ours")
    found, a, b = (load_tensors(path) for path in (folder / "ours", first, second))
    assert found.keys() == a.keys() == b.keys()
    for name, tensor in found.items():
        assert torch.allclose(tensor, (a[name] + b[name]) / 2, rtol=1e-6, atol=1e-8), name
    return folder / "ours"


def family(model, folder: Path) -> tuple[Path, Path]:
    """A model and one that moved from it, saved by transformers."""
    model.save_pretrained(folder / "a")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.save_pretrained(folder / "b")
    return folder / "a", folder / "b"


def bert_config():
    from transformers import BertConfig

    return BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
    )


def test_a_plain_bert_of_whose_aliases_mergekit_makes_no_list(tmp_path):
    from transformers import AutoModel, BertModel

    torch.manual_seed(0)
    out = average(*family(BertModel(bert_config()), tmp_path), tmp_path)
    assert AutoModel.from_pretrained(out).config.num_hidden_layers == 2


def test_a_masked_bert_without_the_pooler_that_mergekit_asks_for(tmp_path):
    from transformers import AutoModelForMaskedLM, BertForMaskedLM

    torch.manual_seed(0)
    out = average(*family(BertForMaskedLM(bert_config()), tmp_path), tmp_path)
    assert AutoModelForMaskedLM.from_pretrained(out).config.vocab_size == 60


def test_whispers_decoder_whose_tensors_mergekit_misnames(zoo, tmp_path):
    from transformers import WhisperForConditionalGeneration

    out = average(zoo / "whisper" / "a", zoo / "whisper" / "c", tmp_path)
    model = WhisperForConditionalGeneration.from_pretrained(out)
    assert torch.isfinite(model.proj_out.weight).all()


def test_an_architecture_that_nobody_knows(tmp_path):
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        tensors = {"new.layers.0.mixer.weight": torch.randn(6, 5), "new.gate": torch.randn(3)}
        config = {"architectures": ["BrandNewForCausalLM"], "model_type": "brand_new"}
        save_checkpoint(tmp_path / name, tensors, config)
    text = config_text("linear", [tmp_path / "a", tmp_path / "b"], parameters={"weight": 0.5})
    with pytest.raises(ValueError, match="brand_new"):
        run_mergekit(text, tmp_path / "theirs")
    run_mergeplan(text, tmp_path / "ours")
    assert load_tensors(tmp_path / "ours").keys() == tensors.keys()


@pytest.mark.parametrize("pool", ["qwen2", "gemma2"])
@pytest.mark.parametrize("ranges", [[(0, 1), (3, 4)], [(0, 3), (1, 4)]], ids=["fewer", "more"])
def test_layers_of_models_whose_config_has_a_list_of_layers(ranges, pool, zoo, tmp_path):
    from huggingface_hub.errors import StrictDataclassClassValidationError
    from transformers import AutoModelForCausalLM

    sources = [f"[{{model: {zoo / pool / 'a'}, layer_range: {list(r)}}}]" for r in ranges]
    slices = "\n".join(f"  - sources: {source}" for source in sources)
    text = f"merge_method: passthrough\nslices:\n{slices}\n"
    with pytest.raises(StrictDataclassClassValidationError, match="layer_types"):
        run_mergekit(text, tmp_path / "theirs")
    run_mergeplan(text, tmp_path / "ours")
    layers = [layer for first, end in ranges for layer in range(first, end)]
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    donor = json.loads((zoo / pool / "a" / "config.json").read_text())
    assert config["num_hidden_layers"] == len(layers)
    assert config["layer_types"] == [donor["layer_types"][layer] for layer in layers]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "ours").num_parameters() > 0


def test_a_hub_cache_without_a_network(zoo, tmp_path, monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled

    use_hub_cache(monkeypatch, zoo / "hub", lists_files=False)
    text = config_text("linear", [Path("tiny/a"), Path("tiny/c")], parameters={"weight": 0.5})
    with pytest.raises(OfflineModeIsEnabled):
        run_mergekit(text, tmp_path / "theirs")
    run_mergeplan(text, tmp_path / "ours")
    assert (tmp_path / "ours" / "chat_template.jinja").exists()


def test_shards_of_an_earlier_run_stay_in_mergekits_output(zoo, tmp_path):
    models = [zoo / "llama" / "a", zoo / "llama" / "c"]
    text = config_text("linear", models, parameters={"weight": 0.5})
    run_mergekit(text, tmp_path / "theirs", out_shard_size=20_000)
    run_mergekit(text, tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours")
    run_mergeplan(text, tmp_path / "ours", overwrite=True)
    assert [path.name for path in (tmp_path / "ours").glob("*.safetensors")] == [
        "model.safetensors"
    ]
    assert not (tmp_path / "ours" / "model.safetensors.index.json").exists()


def test_slices_of_another_depth_beside_a_list_of_layers(zoo, tmp_path):
    """mergekit plans them here, because of the tokenizer, and alone stops after its work."""
    from transformers import AutoModelForCausalLM

    base, a = zoo / "qwen2" / "base", zoo / "qwen2" / "a"
    text = f"""
merge_method: passthrough
slices:
- sources: [{{model: {base}, layer_range: [0, 3]}}]
- sources: [{{model: {a}, layer_range: [1, 4]}}]
tokenizer_source: base
base_model: {base}
"""
    with pytest.raises(Exception, match="layer_types"):
        run_mergekit(text, tmp_path / "theirs")
    run_mergeplan(text, tmp_path / "ours")
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").config
    assert config.num_hidden_layers == len(config.layer_types) == 6
