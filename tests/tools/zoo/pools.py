"""A tiny base and two fine-tunes of a class, as `save_pretrained` leaves them, with a tokenizer."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.tools.zoo.classes import Species
from tests.tools.zoo.configs import small_config
from tests.tools.zoo.sizes import VOCABULARY

MODELS = ("base", "a", "b")
BIGGEST = 12_000_000


def build(species: Species, tied: bool | None) -> Any:
    """A model on the CPU, in float32.

    Args:
        tied: Whether its head is the embedding; `None` leaves that to the class.
    """
    config = small_config(species.config_class, species.name)
    if tied is not None:
        for part in (config, config.get_text_config()):
            part.tie_word_embeddings = tied
    model = species.model_class(config).float()
    n_elements = sum(parameter.numel() for parameter in model.parameters())
    if n_elements > BIGGEST:
        raise ValueError(f"{n_elements} parameters are no tiny model")
    return model


def make_pool(folder: Path, model: Any) -> None:
    """Write `base`, `a` and `b`; the last lies in shards."""
    start = {}
    for seed, name in enumerate(MODELS):
        generator = torch.Generator().manual_seed(seed)
        for key, tensor in _stored(model).items():
            noise = torch.randn(tensor.shape, generator=generator)
            with torch.no_grad():
                # A new model is full of ones, zeros and unset memory, which would hide mistakes.
                tensor.copy_(start[key] + 0.004 * noise if seed else 0.02 * noise)
            start.setdefault(key, tensor.clone())
        size = sum(tensor.nbytes for tensor in start.values())
        shards = {"max_shard_size": size // 3 + 1} if name == "b" else {}
        model.save_pretrained(folder / name, **shards)
        tokenizer().save_pretrained(folder / name)


def _stored(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of real numbers, each once, however many names it has."""
    seen: dict[int, str] = {}
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
        and tensor.numel()
        and seen.setdefault(tensor.data_ptr(), name) == name
    }


@cache
def tokenizer() -> Any:
    """As many words as the embedding has rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    words = [*special.values(), *(f"w{i}" for i in range(VOCABULARY - len(special)))]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)
