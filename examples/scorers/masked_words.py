"""The loss of a masked language model, in nats for each masked character.

A document's mask is drawn from the document itself: it is the same for every model, and does not
depend on what stands beside it in a batch.
"""

import zlib

import torch
from transformers import BertForMaskedLM

CHARACTERS, MASK, LENGTH = 128, 128, 64


def load_model(path, dtype, device):
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    return BertForMaskedLM.from_pretrained(path, dtype=wanted, local_files_only=True).to(device)


def encode(text):
    codes = [min(ord(character), CHARACTERS - 1) for character in text[:LENGTH].ljust(LENGTH)]
    seed = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return torch.tensor(codes), torch.rand(LENGTH, generator=seed) < 0.15


def score(model, documents):
    """Of each document the summed loss over its masked characters, and how many there are."""
    rows, masks = map(torch.stack, zip(*(encode(one["text"]) for one in documents), strict=True))
    found = []
    for ids, mask in zip(rows.split(64), masks.split(64), strict=True):
        ids, mask = ids.to(model.device), mask.to(model.device)
        logits = model(input_ids=ids.masked_fill(mask, MASK)).logits.float()
        losses = torch.nn.functional.cross_entropy(logits.mT, ids, reduction="none") * mask
        found += zip(losses.sum(1).tolist(), mask.sum(1).tolist(), strict=True)
    return found
