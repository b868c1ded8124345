"""One tensor's names: with and without the modules that only wrap others.

transformers, torch and trainers put a model below names of their own: `model.language_model.layers`
was `language_model.model.layers`, a trunk saved alone loses its `transformer.`, and FSDP leaves
`_fsdp_wrapped_module` behind. A name's spelling is what stays without them.
"""

from collections.abc import Iterable

# Modules that hold a whole model, or its language model, and no tensors of their own.
WRAPPERS = {"model", "language_model", "transformer", "thinker", "timm_model"}
WRAPPERS |= {"base_model", "module", "_orig_mod", "_orig_module", "_forward_module"}
WRAPPERS |= {"_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"}
# Wrappers inside a tower alone (`vision_tower.vision_model.`): at the head they name the tower.
INSIDE = {"vision_model"}
# How transformers calls the trunk of each architecture (`base_model_prefix`), at the head alone.
_TRUNKS = """
aimv2 albert align altclip audio_spectrogram_transformer backbone beit bert biogpt bit blip
bridgetower bros canine chinese_clip chmv2 clap clip convbert convnext convnextv2 cpmant cvt dac
data2vec_audio data2vec_text data2vec_vision deberta decision_transformer deit depth_anything
depth_pro dinat dinov2 dinov2_with_registers distilbert donut dpt edgetam edgetam_video
efficientloftr efficientnet electra emuvideovq encodec encoder_decoder eomt eomt_dinov3 ernie esm
esmc esmfold2 fastspeech2_conformer flava fnet focalnet funnel git glpn gpt_neox gpt_neox_japanese
groupvit gte hgnetv2 hiera higgs_audio_v2_tokenizer hubert ibert ijepa internvl_vision layoutlm
layoutlmv2 layoutlmv3 led levit lightglue lilt longformer luke lw_detr_vit lxmert markuplm
metaclip_2 mgp_str mimi mobilebert mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 mpnet mra
neucodec nomic_bert nystromformer owlv2 owlvit perceiver phi4_vision pixio
pocket_tts_audio_tokenizer poolformer prompt_depth_anything prophetnet pvt pvt_v2 rag reformer
regnet rembert resnet rf_detr_dinov2 roberta roberta_prelayernorm roc_bert roformer rwkv sam sam2
sam2_video sam3 sam3_tracker sam3_video sam_hq seamless_m4t seamless_m4t_v2 segformer sew sew_d
siglip siglip2 speech_encoder_decoder speecht5 splinter superglue superpoint swiftformer swin
swin2sr swinv2 switch_transformers tapas textnet timesformer unispeech unispeech_sat
vibevoice_acoustic_tokenizer videomae videomt vilt vision_encoder_decoder vision_text_dual_encoder
visual_bert vit vitdet vits vivit vjepa2 vlm wav2vec2 wav2vec2_bert wav2vec2_conformer wavlm x_clip
xcodec xcodec2 yoso zoedepth
"""
TRUNKS = frozenset(_TRUNKS.split())
# What transformers renames whatever the model: TensorFlow's words, and weight normalization's.
_LAST = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def spelling(name: str) -> str:
    """A tensor's name without wrappers, the same however the model around it is wrapped.

    Args:
        name: A tensor's or a module's.

    Example:
        >>> from mergeplan.checkpoints.spelling import spelling
        >>> spelling("model.language_model.layers.0.mlp.up_proj.weight")
        'layers.0.mlp.up_proj.weight'
        >>> spelling("vision_tower.vision_model.encoder.layers.0.layer_norm1.bias")
        'vision_tower.encoder.layers.0.layer_norm1.bias'
    """
    return _taken_apart(name)[1]


def same_tensor(one: str, other: str) -> bool:
    """Whether two names may stand for one tensor: `bert.pooler` and `roberta.pooler` do not."""
    first, second = _taken_apart(one), _taken_apart(other)
    return first[1] == second[1] and (first[0] == second[0] or "" in (first[0], second[0]))


def by_spelling(names: Iterable[str]) -> dict[str, str]:
    """The name of each spelling that only one of a model's names has."""
    found: dict[str, str] = {}
    twice = set()
    for name in names:
        key = spelling(name)
        if found.setdefault(key, name) != name:
            twice.add(key)
    return {key: name for key, name in found.items() if key not in twice}


def _taken_apart(name: str) -> tuple[str, str]:
    """The trunk's own name, empty where there is none, and the spelling."""
    trunk = ""
    kept: list[str] = []
    *modules, last = name.split(".")
    for module in modules:
        if module in WRAPPERS or (kept and module in INSIDE):
            continue
        if not kept and not trunk and module in TRUNKS:
            trunk = module
        else:
            kept.append(module)
    kept.append(last)
    spelled = ".".join(kept)
    for old, new in _LAST.items():
        if spelled == old or spelled.endswith(f".{old}"):
            spelled = spelled[: -len(old)] + new
    return trunk, spelled
