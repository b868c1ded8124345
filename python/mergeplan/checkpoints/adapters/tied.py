"""Adapters of a head and an embedding that are one matrix in the base.

peft wraps them apart. What `modules_to_save` replaces is then one of the two, and the other keeps
the base's values: merged, they are two matrices, and config.json unties. Factors, though, are added
in place, to what both hold.
"""

from dataclasses import dataclass

from mergeplan.checkpoints.adapters.keys import Change
from mergeplan.checkpoints.adapters.settings import BY_PEFT
from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.head_names import embedding_of
from mergeplan.checkpoints.heads import head_name, makes_words, ties
from mergeplan.errors import InputError


@dataclass(frozen=True)
class Tie:
    """Two names of one matrix. The head's may be stored too, or not."""

    head: str
    embedding: str


def tie_of(base: Checkpoint) -> Tie | None:
    """Head and embedding of a base that ties them."""
    head = head_name(base)
    embedding = embedding_of(head or "lm_head.weight", base.of_words)
    if head is None or embedding is None or not ties(base):
        return None
    return Tie(head, embedding)


def settle(
    placed: dict[str, Change], tie: Tie | None, base: Checkpoint, adapter: Checkpoint
) -> tuple[dict[str, Change], bool]:
    """What becomes of head and embedding, as peft's `merge_and_unload` does it.

    Returns:
        The changes, and whether head and embedding part.

    Raises:
        InputError: peft would change both where the adapter was trained on one.
    """
    if tie is None:
        _refuse_masked(placed, base, adapter)
        return placed, False
    others = {n: one for n, one in placed.items() if n not in (tie.head, tie.embedding)}
    embedding, head = placed.get(tie.embedding), placed.get(tie.head)
    together = bool(adapter.config.get("ensure_weight_tying"))
    own = embedding is not None and embedding.factors is None and _is_saved(embedding, adapter)
    apart = not together and head is not None and (own or _is_saved(head, adapter))
    if head is not None and head.factors is None and not apart:
        # It was loaded into the matrix that both are.
        embedding, head = embedding or head, None
    parts = head is not None or (own and not together)
    if head is not None and head.factors and not own:
        raise _in_place(tie.head, tie, base, adapter)
    # Whether a head that is stored too equals the embedding, headers do not tell.
    unclear = together or tie.head in base.tensors
    if embedding is not None and embedding.factors and head is None and unclear:
        raise _in_place(tie.embedding, tie, base, adapter)
    found = {tie.embedding: embedding, tie.head: head}
    return others | {name: one for name, one in found.items() if one is not None}, parts


def said(
    placed: dict[str, Change],
    tie: Tie | None,
    base: Checkpoint,
    adapter: Checkpoint,
    *,
    parts: bool,
) -> list[str]:
    """A warning where the head changes with the embedding, whose factors were trained alone."""
    embedding = placed.get(tie.embedding) if tie else None
    if tie is None or embedding is None or embedding.factors is None or parts:
        return []
    return [
        f"`{adapter.path}`: its factors of `{tie.embedding}` change the head of `{base.name}` too,"
        " which is tied to it: as peft merges them, while they were trained with the head unchanged"
    ]


def _is_saved(change: Change, adapter: Checkpoint) -> bool:
    """Whether peft wraps a module in a copy that is trained, rather than load into it."""
    if change.is_saved:
        return True
    saved = adapter.config.get("modules_to_save")
    names = saved if isinstance(saved, list) else []
    return any(f".{change.module}".endswith(f".{name}") for name in names)


def _in_place(name: str, tie: Tie, base: Checkpoint, adapter: Checkpoint) -> InputError:
    other = tie.embedding if name == tie.head else tie.head
    return InputError(
        f"`{adapter.path}`: the adapter has factors of `{name}`, which `{base.name}` ties to"
        f" `{other}`: peft adds them to both, while it was trained with the other unchanged",
        f"untie the base first: write the embedding as `{tie.head}` too, and"
        " `tie_word_embeddings: false` into its config.json",
    )


def _refuse_masked(placed: dict[str, Change], base: Checkpoint, adapter: Checkpoint) -> None:
    """A head that is more than a matrix stays tied, where it is not written out."""
    embedding = embedding_of("lm_head.weight", base.of_words)
    if embedding in placed and head_name(base) is None and makes_words(base) and ties(base):
        raise InputError(
            f"`{adapter.path}`: the adapter changes `{embedding}`, which the head of"
            f" `{base.name}` is tied to",
            BY_PEFT,
        )
