"""Tiny models of ten architectures, each as a pool: a base and three experts, with tokenizers.

In every pool `base` and `a` are one file of the pool's dtype, `b` has another dtype, and `c` lies
in three shards. Their tensors move a little from the base's. The pool `words` differs in its
vocabularies: `a` adds tokens, `b` has a tokenizer of its own and padding rows, `c` has the base's.
The pool `hub` is a hub cache, whose models go by `tiny/base`, `tiny/a`, ….
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import load_tensors, save_checkpoint

LAYERS = 4
VOCABULARY = 96
MODELS = ("base", "a", "b", "c")
ENGLISH = ["the cat sat on the mat and the dog ran to the park when it was late"] * 4
CODE = ["def add(x, y): return x + y", "for i in range(9): print(i * x)", "while x: x -= 1"] * 4
ADDED = ("<|im_start|>", "<|im_end|>")
CHAT = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
CHATML = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


@dataclass(frozen=True)
class Pool:
    """A pool's models.

    Attributes:
        dtype: Of the base and most experts; `other` is that of expert `b`.
        modules: As mergekit names them.
    """

    architecture: str
    dtype: str = "float32"
    other: str = "bfloat16"
    tied: bool = False
    modules: tuple[str, ...] = ("default",)

    @property
    def decoder_only(self) -> bool:
        return self.architecture not in ("bert", "t5", "whisper")


POOLS = {
    "llama": Pool("llama"),
    "llama-tied": Pool("llama", tied=True),
    "llama-16-bit": Pool("llama", "bfloat16", "float32"),
    "qwen2": Pool("qwen2", "bfloat16", "float16", tied=True),
    "mistral": Pool("mistral", "float16", "bfloat16"),
    "gemma2": Pool("gemma2", tied=True),
    "phi3": Pool("phi3"),
    "mixtral": Pool("mixtral"),
    "bert": Pool("bert"),
    "t5": Pool("t5", modules=("encoder", "decoder", "shared")),
    "whisper": Pool("whisper", modules=("encoder",)),
    "words": Pool("llama"),
    "hub": Pool("qwen2", tied=True),
}


def model_name(pool: str, model: str) -> str:
    """How a config names a model; `ZOO` stands for the zoo's folder."""
    return f"tiny/{model}" if pool == "hub" else f"ZOO/{pool}/{model}"


def make_zoo(root: Path) -> Path:
    """Write all pools, and the hub cache, below `root`."""
    for name, pool in POOLS.items():
        if name == "hub":
            _make_pool(root / "unpacked", pool)
            for model in MODELS:
                put_into_cache(root / "unpacked" / model, root / "hub", f"tiny/{model}")
            shutil.rmtree(root / "unpacked")
        else:
            _make_pool(root / name, pool, own_words=name == "words")
    return root


def put_into_cache(model: Path, cache_folder: Path, name: str) -> Path:
    """Lay a model out as huggingface_hub does: blobs by hash, a snapshot of links, a ref."""
    revision = hashlib.sha1(name.encode()).hexdigest()
    repository = cache_folder / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    for path in sorted(model.iterdir()):
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        path.rename(blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs" / "main").write_text(revision)
    return snapshot


def _make_pool(folder: Path, pool: Pool, own_words: bool = False) -> None:
    sizes = dict.fromkeys(MODELS, VOCABULARY)
    if own_words:
        sizes |= {"a": VOCABULARY + len(ADDED), "b": VOCABULARY + 8}
    config = _config(pool)
    torch.manual_seed(0)
    _model_class(pool)(config).save_pretrained(folder / "made")
    start = load_tensors(folder / "made")
    text = json.loads((folder / "made" / "config.json").read_text())
    generation = folder / "made" / "generation_config.json"
    for seed, model in enumerate(MODELS):
        dtype = pool.other if model == "b" else pool.dtype
        tensors = {
            name: _moved(_resized(tensor, sizes[model]), seed, name).to(getattr(torch, dtype))
            for name, tensor in start.items()
        }
        own = {**text, "dtype": dtype, "vocab_size": sizes[model]}
        save_checkpoint(folder / model, tensors, own, shards=3 if model == "c" else 1)
        if generation.exists():
            shutil.copy(generation, folder / model)
        _tokenizer(model if own_words else "base").save_pretrained(folder / model)
    shutil.rmtree(folder / "made")


def _resized(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """A tensor over the vocabulary with more rows; any other as it is."""
    if tensor.shape[:1] != (VOCABULARY,) or rows == VOCABULARY:
        return tensor
    generator = torch.Generator().manual_seed(rows)
    more = 0.02 * torch.randn((rows - VOCABULARY, *tensor.shape[1:]), generator=generator)
    return torch.cat([tensor, more])


def _moved(tensor: torch.Tensor, seed: int, name: str) -> torch.Tensor:
    """The base's tensor, or an expert's. Ones and zeros of a new model would hide mistakes."""
    key = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(key))
    moved = tensor.float() + 0.01 * noise
    if seed:
        generator = torch.Generator().manual_seed(key + seed)
        moved += 0.004 * torch.randn(tensor.shape, generator=generator)
    return moved


def _config(pool: Pool) -> Any:
    import transformers

    hidden = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    vocabulary = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    decoder = {**hidden, **vocabulary, "num_hidden_layers": LAYERS, "num_key_value_heads": 2}
    decoder["tie_word_embeddings"] = pool.tied
    match pool.architecture:
        case "llama":
            return transformers.LlamaConfig(**decoder)
        case "qwen2":
            return transformers.Qwen2Config(**decoder)
        case "mistral":
            return transformers.MistralConfig(**decoder)
        case "gemma2":
            return transformers.Gemma2Config(**decoder, head_dim=8)
        case "phi3":
            return transformers.Phi3Config(**decoder)
        case "mixtral":
            return transformers.MixtralConfig(**decoder, num_local_experts=4)
        case "bert":
            return transformers.BertConfig(
                **hidden, **vocabulary, num_hidden_layers=LAYERS, max_position_embeddings=24
            )
        case "t5":
            return transformers.T5Config(
                **vocabulary,
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=LAYERS,
                num_decoder_layers=3,
                num_heads=4,
                decoder_start_token_id=0,
                feed_forward_proj="gated-gelu",  # what mergekit's architecture file describes
                tie_word_embeddings=pool.tied,
            )
        case "whisper":
            return transformers.WhisperConfig(
                **vocabulary,
                d_model=32,
                encoder_layers=LAYERS,
                decoder_layers=3,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                num_mel_bins=8,
                max_source_positions=20,
                max_target_positions=16,
                decoder_start_token_id=1,
                suppress_tokens=None,
                begin_suppress_tokens=None,
            )
    raise AssertionError(pool.architecture)


def _model_class(pool: Pool) -> Callable[[Any], Any]:
    import transformers

    special = {
        "bert": transformers.BertForSequenceClassification,
        "t5": transformers.T5ForConditionalGeneration,
        "whisper": transformers.WhisperForConditionalGeneration,
    }
    return special.get(pool.architecture) or transformers.AutoModelForCausalLM.from_config


@cache
def _tokenizer(model: str) -> Any:
    """The base's tokenizer, or that of an expert of the pool `words`."""
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    trained = _train(CODE if model == "b" else ENGLISH, list(special.values()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, **special)
    tokenizer.chat_template = CHAT
    if model == "a":
        tokenizer.add_tokens(list(ADDED), special_tokens=True)
        tokenizer.chat_template = CHATML
    return tokenizer


def _train(texts: list[str], special: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789():,+-*="
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=list(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
