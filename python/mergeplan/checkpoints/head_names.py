"""Which tensors are heads and embeddings, by their names alone."""

import re
from collections.abc import Iterable

from mergeplan.checkpoints.spelling import INSIDE, WRAPPERS, spelling

# Ends of names in what the classes of transformers tie (`_tied_weights_keys`); the module around a
# head and its embedding comes before.
_HEAD = re.compile(
    r"(?P<around>(?:.*?\.)??)(?:lm_head|lm_head\.decoder|lm_head\.out_proj|embed_out"
    r"|generator_lm_head|(?:cls\.)?predictions\.decoder|vocab_projector)\.weight"
)
# Other modules have these words too. InternLM2 has `output`, ChatGLM `output_layer`.
_ALONE = {
    f"{word}.weight"
    for word in (
        "decoder",
        "decoder.output_projection",
        "head",
        "head.decoder",
        "lm_loss",
        "mlm_score.decoder",
        "output",
        "output_layer",
        "output_projection",
        "pred_layer.proj",
        "proj_out",
    )
}
EMBEDDING = re.compile(
    r"(?P<around>(?:.*?\.)??)(?:(?P<shared>shared)|embed_tokens|wte|embed_in|tok_embeddings"
    r"|tokens_embed|word_embeddings?)\.weight"
)
# Mamba's and CTRL's.
EMBEDDING_ALONE = ("embeddings.weight", "embedding.weight", "w.weight")
HALF = re.compile(
    r"(?P<around>(?:.*?\.)??)(?:text_)?(?:encoder|decoder)\.(?:embed_tokens|word_embeddings)\.weight"
)
# The last modules of all names above, and those that a spelling passes over.
_MODULES = {
    *("lm_head", "decoder", "out_proj", "embed_out", "generator_lm_head", "vocab_projector"),
    *("output_projection", "head", "lm_loss", "output", "output_layer", "proj", "proj_out"),
    *("shared", "embed_tokens", "wte", "embed_in", "tok_embeddings", "tokens_embed"),
    *("word_embedding", "word_embeddings", "embeddings", "embedding", "w"),
    *WRAPPERS,
    *INSIDE,
}


def may_be_of_words(name: str) -> bool:
    """Whether a tensor may be a head or an embedding: quick, of a hundred thousand names."""
    _, _, modules = name.removesuffix(".weight").rpartition(".")
    return modules in _MODULES and name.endswith(".weight")


def is_head(name: str) -> bool:
    """Whether a tensor makes logits, by its name."""
    if not may_be_of_words(name):
        return False
    spelled = spelling(name)
    return spelled in _ALONE or _HEAD.fullmatch(spelled) is not None


def has_row_per_token(name: str) -> bool:
    """Whether a tensor has a row for each token, by its name: an embedding, a head, its bias."""
    spelled = spelling(name)
    if spelled.endswith("predictions.bias") or is_head(f"{name.removesuffix('.bias')}.weight"):
        return True
    embeds = EMBEDDING.fullmatch(spelled) or HALF.fullmatch(spelled)
    return is_head(name) or embeds is not None or spelled in EMBEDDING_ALONE


def heads_in(names: Iterable[str]) -> list[str]:
    """The heads among some tensors."""
    return [name for name in names if is_head(name)]


def embedding_of(head: str, names: Iterable[str]) -> str | None:
    """The embedding that a head is tied to, if it is tied; `None` where there is none.

    Args:
        names: All tensors of the model. Of several embeddings it is the one that both halves
            share, then the decoder's, then the one with the shortest name.
    """
    found = _HEAD.fullmatch(spelling(head))
    around = found["around"] if found else ""
    ranked = []
    for name in filter(may_be_of_words, names):
        spelled = spelling(name)
        match = EMBEDDING.fullmatch(spelled)
        if match and match["around"].startswith(around):
            of_encoder = "encoder." in spelled
            ranked.append((match["shared"] is None, of_encoder, spelled.count("."), name))
        elif spelled.removeprefix(around) in EMBEDDING_ALONE:
            ranked.append((True, False, spelled.count("."), name))
    return min(ranked)[-1] if ranked else None
