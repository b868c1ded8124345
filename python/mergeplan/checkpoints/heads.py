"""Heads and embeddings: which tensor is which, and whether they are one.

A head is the matrix from the last hidden state to logits. Many models tie it to the embedding and
store one of the two. Whether they do is asked here and nowhere else: of config.json, of what
transformers takes where an architecture's config.json does not say, and of the files.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint, Tensor
from mergeplan.checkpoints.head_names import (
    EMBEDDING,
    EMBEDDING_ALONE,
    HALF,
    embedding_of,
    heads_in,
    is_head,
)
from mergeplan.checkpoints.spelling import spelling

_TIE, _TEXT = "tie_word_embeddings", "text_config"
# Architectures whose head is not called `lm_head`.
_HEADS = {
    "biogpt": "output_projection.weight",
    "canary": "proj_out.weight",
    "gpt_neox_japanese": "embed_out.weight",
    "flaubert": "pred_layer.proj.weight",
    "kosmos-2": "text_model.lm_head.weight",
    "kosmos-2.5": "text_model.lm_head.weight",
    "modernbert": "decoder.weight",
    "modernbert-decoder": "decoder.weight",
    "moonshine": "proj_out.weight",
    "moonshine_streaming": "proj_out.weight",
    "t5gemma": "lm_head.out_proj.weight",
    "t5gemma2": "lm_head.out_proj.weight",
    "trocr": "output_projection.weight",
    "whisper": "proj_out.weight",
    "xlm": "pred_layer.proj.weight",
    "xlnet": "lm_loss.weight",
}
_WITH_HEAD = re.compile("LM|Generation|TextTo|ToText|MTModel")
# The `model_type`s that transformers ties where config.json does not say.
_TIED = """
albert aya_vision bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot
blenderbot-small blip blip_text_model bloom camembert canary cohere cohere2 cohere2_moe
cohere2_vision cohere_compass_text convbert ctrl d_fine dab-detr data2vec-text deberta deberta-v2
deepseek_vl deepseek_vl_hybrid deformable_detr deimv2 diffusion_gemma diffusion_gemma_text
distilbert electra ernie ernie4_5 ernie4_5_moe ernie4_5_vl_moe ernie4_5_vl_moe_text esm falcon
falcon_mamba flaubert flava florence2 fnet fun_asr_nano funnel gemma gemma2 gemma3 gemma3_text
gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_assistant gemma4_unified_text
glmasr got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox_japanese granite_docling
granite_docling_text granite_speech granite_speech5_ctc granite_speech_plus granite_swa
grounding-dino gte hunyuan_vl hunyuan_vl_text hyperclovax_vision_v2 ibert internvl janus jetmoe
jina_embeddings_v3 kimi_k25 kosmos-2 kosmos-2.5 kosmos_2_5_text_model kosmos_2_text_model lara_mini
layoutlm led lfm2 lfm2_moe lfm2_vl lfm3 lfm3_vl lighton_ocr longformer longt5 lxmert m2m_100 mamba
marian mbart megatron-bert mimi mimi_decoder mimi_encoder minicpm3 minicpm_ocr mistral3
mm-grounding-dino mobilebert modernbert modernbert-decoder moonshine moss_transcribe_diarize mpnet
mpt mra mt5 mvp neomme nllb-moe nomic_bert nystromformer openai-gpt opt ovis2 paddleocr_vl
paddleocr_vl_text paligemma pe_audio_video pegasus pegasus_x plbart pp_chart2table pp_doclayout_v3
pp_doclayout_v4 prophetnet qwen2_5_omni_text qwen3_asr qwen3_vl_moe_text recurrent_gemma roberta
roberta-prelayernorm roc_bert roformer rt_detr_v2 sam sam_hq seamless_m4t seamless_m4t_v2
shieldgemma2 smollm3 speech_to_text speecht5 squeezebert starcoder2 switch_transformers t5
t5_gemma_module t5gemma t5gemma2 t5gemma2_decoder t5gemma2_encoder t5gemma2_text tapas trocr udop
umt5 vaultgemma vilt visual_bert voxtral_realtime whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet
xmod yoso youtu zamba zamba2 zaya
"""
TIED_BY_DEFAULT = frozenset(_TIED.split())


def ties(checkpoint: Checkpoint) -> bool:
    """Whether a model's head is its embedding.

    config.json says so, at the top or in `text_config`; where it does not, the architecture's
    default; where that is unknown or config.json contradicts itself, whether no head is stored.
    """
    return ties_by(checkpoint.config, checkpoint.of_words)


def ties_by(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    """The same of a model's config.json, and the names of its tensors."""
    stated = _stated(config)
    return not heads_in(names) if stated is None else stated


def _stated(config: Mapping[str, Any]) -> bool | None:
    text = config.get(_TEXT)
    inner = text.get(_TIE) if isinstance(text, Mapping) else None
    # LFM2's own word comes first, as in transformers.
    outer = config.get("tie_embedding", config.get(_TIE))
    if isinstance(outer, bool):
        # transformers asks both for some architectures, for others the outer one.
        return None if inner is True and not outer else outer
    if isinstance(inner, bool):
        return inner
    return True if config.get("model_type") in TIED_BY_DEFAULT else None


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json whose model has a head of its own."""
    made = {**config, _TIE: False}
    if "tie_embedding" in made:
        made["tie_embedding"] = False
    text = config.get(_TEXT)
    if isinstance(text, Mapping) and _TIE in text:
        made[_TEXT] = {**text, _TIE: False}
    return made


def head_of(checkpoint: Checkpoint) -> str:
    """How a model gets from its last hidden state to logits.

    Returns:
        `own`, `tied` (none is stored; the embedding serves), `stored though tied`, or `none`.
    """
    if heads_in(checkpoint.of_words):
        return "stored though tied" if ties(checkpoint) else "own"
    return "tied" if ties(checkpoint) and embedding(checkpoint) else "none"


def embedding(checkpoint: Checkpoint) -> Tensor | None:
    """The matrix of the vocabulary's vectors."""
    name = embedding_of("lm_head.weight", checkpoint.of_words)
    return None if name is None else checkpoint.tensors[name]


def stand_in(name: str, checkpoint: Checkpoint) -> str | None:
    """The tensor that serves for one that a checkpoint leaves out, because they are tied.

    Tying is symmetric: what is stored serves for the others, head or embedding.
    """
    tensors = checkpoint.of_words
    if is_head(name):
        return embedding_of(name, tensors) if ties(checkpoint) else None
    spelled = spelling(name)
    if half := HALF.fullmatch(spelled):
        return embedding_of(half["around"] + "lm_head.weight", tensors)
    if spelled in EMBEDDING_ALONE or EMBEDDING.fullmatch(spelled):
        heads = heads_in(tensors)
        if len(heads) == 1 and ties(checkpoint) and embedding(checkpoint) is None:
            return heads[0]
    return None


def head_name(checkpoint: Checkpoint) -> str | None:
    """What a model's head is called, whether it is stored or not; `None` where it has none.

    Models that fill in masked words are left out: their heads are more than a matrix.
    """
    for name in heads_in(checkpoint.of_words):
        return name
    if not makes_words(checkpoint):
        return None
    found = embedding_of("lm_head.weight", checkpoint.of_words)
    if found is None or "embeddings.word_embeddings" in found:
        return None
    # Vision-language models once had the head inside of their language model.
    inside = "language_model." if found.startswith("language_model.model.") else ""
    return inside + _HEADS.get(str(checkpoint.config.get("model_type")), "lm_head.weight")


def makes_words(checkpoint: Checkpoint) -> bool:
    """Whether a model is one with a head, as far as config.json says."""
    architectures = checkpoint.config.get("architectures")
    architectures = architectures if isinstance(architectures, list) else []
    return not architectures or any(_WITH_HEAD.search(str(one)) for one in architectures)


def counted_twice(checkpoint: Checkpoint) -> set[str]:
    """Tensors that are stored beside what they are tied to."""
    return (
        set(heads_in(checkpoint.of_words)) if head_of(checkpoint) == "stored though tied" else set()
    )


def count_params(checkpoint: Checkpoint) -> int:
    """Elements of all tensors, tied ones once."""
    shapes = Counter(tensor.shape for tensor in checkpoint.tensors.values())
    shapes.subtract(checkpoint.tensors[name].shape for name in counted_twice(checkpoint))
    return sum(prod(shape) * count for shape, count in shapes.items())
