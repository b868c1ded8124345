"""A byte-level language model of about 80,000 parameters, and its tokenizer."""

from pathlib import Path
from typing import Any

# Tokens beside the 256 bytes.
END, PAD = 256, 257
_NAMES = {END: "<|endoftext|>", PAD: "<|pad|>"}


def new_model() -> Any:
    """Of Qwen2's architecture, drawn by torch's generator."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=256 + len(_NAMES),
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return Qwen2ForCausalLM(config)


def save(model: Any, folder: Path) -> None:
    """The checkpoint, which appears as a whole: its folder is renamed when it is complete."""
    partial = folder.with_name(f"{folder.name}.partial")
    model.save_pretrained(partial)
    _byte_tokenizer().save_pretrained(partial)
    partial.rename(folder)


def _byte_tokenizer() -> Any:
    """Token i is byte i, in the letters that GPT-2 gave to bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    letters = {byte: byte for byte in printed}
    letters |= {byte: 256 + place for place, byte in enumerate(others)}
    vocabulary = {chr(letters[byte]): byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=_NAMES[END], pad_token=_NAMES[PAD]
    )
