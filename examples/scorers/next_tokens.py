"""The share of places from which a causal model has the next tokens right, as its likeliest.

Each token is judged with the true ones before it. `IN_A_ROW` tokens have to be right: of one it is
the accuracy of the next token, of more it is the nearer to answers that are right or wrong as a
whole.
"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

METRIC, BETTER = "next_token", "higher"
IN_A_ROW, LENGTH, AT_ONCE = 1, 129, 64

tokenizers = {}


def load_model(path, dtype, device):
    tokenizers["own"] = AutoTokenizer.from_pretrained(path, local_files_only=True)
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    return AutoModelForCausalLM.from_pretrained(path, dtype=wanted, local_files_only=True).to(
        device
    )


def score(model, documents):
    """Of each document how many places are right, and how many there are."""
    rows = [tokenizers["own"](one["text"])["input_ids"][:LENGTH] for one in documents]
    found = []
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        width = max(map(len, some))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in some], device=model.device)
        right = model(input_ids=ids).logits[:, :-1].argmax(-1) == ids[:, 1:]
        for row, hits in zip(some, right, strict=True):
            windows = hits[: len(row) - 1].unfold(0, IN_A_ROW, 1).all(-1)
            found.append((float(windows.sum()), len(windows)))
    return found
