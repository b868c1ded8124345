"""What a model makes of prompts, greedily, and how it is given them: a chat template or tokenizer
that is broken shows there, and not in a loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.errors import InputError
from mergeplan.evaluation.loading import context_of, load_tokenizer
from mergeplan.evaluation.prompts import Prompt


@dataclass(frozen=True)
class Completion:
    """One model's answer to one prompt.

    Attributes:
        prompt: As the model is given it, special tokens and all.
        text: What it says, special tokens and all.
        n_tokens: Of the text.
        ended: Whether the model ended it by itself.
        fault: Why there is no text; empty where there is one.
    """

    prompt: str = ""
    text: str = ""
    n_tokens: int = 0
    ended: bool = False
    fault: str = ""

    def outcome(self) -> str:
        """How it went, in a few words."""
        if self.fault:
            return self.fault
        tokens = f"{self.n_tokens} token{'' if self.n_tokens == 1 else 's'}"
        return f"{tokens}, {'ended' if self.ended else 'cut'}"


def complete(
    folder: Path, model: Any, prompts: Sequence[Prompt], *, max_new_tokens: int
) -> tuple[Completion, ...]:
    """Greedy completions, with the model's own tokenizer and end tokens and nothing else of its
    `generation_config.json`: no sampling, no penalties, the same in every run.

    Raises:
        InputError: The model has no tokenizer, or cannot generate.
    """
    from transformers import GenerationConfig

    tokenizer = load_tokenizer(folder)
    own = getattr(model, "generation_config", None)
    ends = getattr(own, "eos_token_id", None)
    if ends is None:
        ends = tokenizer.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    # In the model's place: `generate` fills what a config of ours leaves open from the model's.
    model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0
    )
    found = []
    for prompt in prompts:
        try:
            found.append(_complete(model, tokenizer, prompt, ends, max_new_tokens))
        except Exception as error:  # models raise what they like; which and where is what helps
            raise InputError(
                f"model `{folder}` cannot complete the prompt on line {prompt.line}: {error}"
            ) from error
    return tuple(found)


def _complete(
    model: Any, tokenizer: Any, prompt: Prompt, ends: list[int], max_new_tokens: int
) -> Completion:
    import torch

    try:
        ids = _encode(prompt, tokenizer)
    except Exception as error:  # of a template: its message is what helps
        return Completion(fault=f"the chat template refuses the conversation: {error}")
    if ids is None:
        return Completion(fault="its tokenizer has no chat template")
    if not ids:
        return Completion(fault="its tokenizer makes no token of the prompt")
    seen = _decode(tokenizer, ids)
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        fault = f"its tokenizer gives token {max(ids)}, the model knows {rows}"
        return Completion(seen, fault=fault)
    context = context_of(model.config)
    room = max_new_tokens if context is None else min(max_new_tokens, context - len(ids))
    if room < 1:
        return Completion(seen, fault=f"{len(ids)} tokens leave no room in a context of {context}")
    given = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        out = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=room)
    new = out[0, len(ids) :].tolist()
    whole = _decode(tokenizer, [*ids, *new])
    # Some tokenizers drop a space before the first of some tokens.
    text = whole[len(seen) :] if whole.startswith(seen) else _decode(tokenizer, new)
    return Completion(seen, text, len(new), bool(new) and new[-1] in ends)


def _encode(prompt: Prompt, tokenizer: Any) -> list[int] | None:
    """Tokens of a prompt; nothing for a conversation without a chat template."""
    text = prompt.text
    if prompt.messages:
        if not tokenizer.chat_template:
            return None
        text = tokenizer.apply_chat_template(
            list(prompt.messages), tokenize=False, add_generation_prompt=True
        )
    # A template writes the special tokens, also the first.
    found = tokenizer(text, add_special_tokens=not prompt.messages, verbose=False)
    ids: list[int] = found["input_ids"]
    return ids


def _decode(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
