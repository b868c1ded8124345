"""Which tensor is a model's head, which its embedding, and whether they are one."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from mergeplan.checkpoints.checkpoint import Checkpoint, Tensor
from mergeplan.checkpoints.head_names import embedding_of, is_head
from mergeplan.checkpoints.heads import (
    TIED_BY_DEFAULT,
    counted_twice,
    head_name,
    head_of,
    stand_in,
    ties,
    untied,
)
from tests.support.shares import spread

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def model(*names: str, **config) -> Checkpoint:
    tensor = Tensor("F32", (8, 4), "model.safetensors", 128)
    return Checkpoint("m", Path("m"), Path("m"), dict.fromkeys(names, tensor), config)


# Names of the embedding, and of the head that it serves for.
EMBEDDINGS = {
    "model.embed_tokens.weight": "lm_head.weight",
    "language_model.model.embed_tokens.weight": "language_model.lm_head.weight",
    "model.language_model.embed_tokens.weight": "lm_head.weight",
    "backbone.embeddings.weight": "lm_head.weight",
    "backbone.embedding.weight": "lm_head.weight",
    "model.decoder.embed_tokens.weight": "lm_head.weight",
    "transformer.word_embeddings.weight": "lm_head.weight",
    "transformer.wte.weight": "lm_head.weight",
    "wte.weight": "lm_head.weight",
    "shared.weight": "lm_head.weight",
    "gpt_neox.embed_in.weight": "lm_head.weight",
    "model.tok_embeddings.weight": "lm_head.weight",
}


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_embedding_of_a_tied_model_serves_for_its_head(embedding):
    tied = model(embedding, "vision_tower.patch_embedding.weight", tie_word_embeddings=True)
    assert head_name(tied) == EMBEDDINGS[embedding]
    assert stand_in(EMBEDDINGS[embedding], tied) == embedding
    assert head_of(tied) == "tied"
    untied_model = model(embedding, tie_word_embeddings=False)
    assert stand_in(EMBEDDINGS[embedding], untied_model) is None
    assert head_of(untied_model) == "none"


def test_whether_a_head_is_tied_is_asked_of_config_then_architecture_then_files():
    gemma2 = {"model_type": "gemma2"}
    for config, stored, answer in (
        ({"tie_word_embeddings": True}, True, True),
        ({"tie_word_embeddings": False}, False, False),
        ({"text_config": {"tie_word_embeddings": True}}, True, True),
        ({"text_config": {"tie_word_embeddings": False}, "model_type": "gemma3"}, False, False),
        ({"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, True, True),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, 0, True),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, 1, False),
        ({"tie_embedding": False, "model_type": "lfm2"}, True, False),
        (gemma2, True, True),
        (gemma2, False, True),
        ({"model_type": "llama"}, True, False),
        ({"model_type": "someones_own"}, False, True),
        ({}, True, False),
        ({}, False, True),
    ):
        names = (EMBEDDING, HEAD) if stored else (EMBEDDING,)
        assert ties(model(*names, **config)) is answer, config


def test_a_stored_head_counts_once_where_it_is_tied():
    tied = model(EMBEDDING, HEAD, model_type="gemma2")
    assert (head_of(tied), counted_twice(tied)) == ("stored though tied", {HEAD})
    own = model(EMBEDDING, HEAD, tie_word_embeddings=False)
    assert (head_of(own), counted_twice(own)) == ("own", set())


def test_tying_goes_both_ways_and_halves_share():
    assert stand_in(EMBEDDING, model(HEAD, tie_word_embeddings=True)) == HEAD
    t5 = model("shared.weight", "encoder.block.0.x", model_type="t5", tie_word_embeddings=False)
    for half in ("encoder", "decoder"):
        assert stand_in(f"{half}.embed_tokens.weight", t5) == "shared.weight"
    assert stand_in(HEAD, t5) is None
    assert stand_in("model.norm.weight", model(EMBEDDING)) is None


def test_unties_wherever_config_says_so():
    config = {"text_config": {"tie_word_embeddings": True, "x": 1}, "tie_embedding": True}
    made = untied(config)
    assert made["tie_word_embeddings"] is made["tie_embedding"] is False
    assert made["text_config"] == {"tie_word_embeddings": False, "x": 1}
    assert config["text_config"]["tie_word_embeddings"] is True
    assert ties(model(EMBEDDING, **made)) is False


def test_models_that_make_no_words_have_no_head():
    for architecture, found in (
        ("Qwen2ForCausalLM", HEAD),
        ("GPT2LMHeadModel", HEAD),
        ("Gemma3ForConditionalGeneration", HEAD),
        ("Qwen2Model", None),
        ("LlamaForSequenceClassification", None),
    ):
        assert head_name(model(EMBEDDING, architectures=[architecture])) == found
    assert head_name(model("bert.embeddings.word_embeddings.weight")) is None
    speech = model("model.decoder.embed_tokens.weight", model_type="whisper")
    assert head_name(speech) == "proj_out.weight"


def sources(pattern: str) -> list[str]:
    """The files of the installed transformers, read and not imported."""
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    models = Path(spec.origin).parent / "models"
    return [path.read_text("utf-8") for path in sorted(models.glob(pattern))]


# A head apart from the language model, and what is tied without being one.
OTHER_TIES = re.compile(
    r"embed_patches|relative|bias|bbox|class_embed|shared_embedding|layers|ctc_head|codec_head"
    r"|entity_predictions|embed_audio_tokens|text_decoder_postnet|unembedding|additional_fc"
    r"|audio_model|video_model|audio_video|eoi_embedding|norm|local_encoder"
)


def test_all_that_transformers_ties_is_known_by_its_name():
    pattern = re.compile(r"_tied_weights_keys(?:: [^=]+)? = (\{[^{}]*\})", re.DOTALL)
    pairs = set()
    for text in sources("*/modeling_*.py"):
        for found in pattern.findall(text):
            try:
                pairs |= set(ast.literal_eval(found).items())
            except (ValueError, SyntaxError):
                continue  # an f-string of Zamba's
    pairs = {(tied, to) for tied, to in pairs if not OTHER_TIES.search(tied)}
    assert len(pairs) > 60
    for tied, to in sorted(pairs):
        if tied == "transformer.tokens_embed.weight":
            continue  # the first GPT ties the other way round
        whole = model(to.removesuffix("$"), tie_word_embeddings=True)
        assert stand_in(tied, whole) == to.removesuffix("$"), (tied, to)
        if ".embed_tokens" not in tied and ".word_embeddings" not in tied:
            assert is_head(tied), tied
            assert embedding_of(tied, [to.removesuffix("$"), "x.y.weight"])


# What is tied there is no head of ours.
TIED_OTHERWISE = {"cpmant", "csm", "luke", "pop2piano"}


def test_the_architectures_that_tie_by_default_are_those_of_the_installed_transformers():
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for kind in spread(sorted(CONFIG_MAPPING), 20):
        try:
            config = AutoConfig.for_model(kind)
        except Exception:
            continue  # some cannot be made without arguments
        tied = getattr(config, "tie_word_embeddings", False) is True
        assert (tied and kind not in TIED_OTHERWISE) is (kind in TIED_BY_DEFAULT), kind
