"""Calibrate a pool of BERT models by a scorer: the loss of masked characters.

A base and three experts are trained here, in seconds, on texts that come with Python.

python examples/03_masked_words.py [DIR]      # needs torch and transformers
"""

import inspect
import json
import pydoc_data.topics
import random
import sys
import tempfile
from pathlib import Path

import torch
from scorers import masked_words
from transformers import BertConfig, BertForMaskedLM

import mergeplan

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "bert"
torch.manual_seed(0)
random.seed(0)


def pieces(text):
    """Some pieces of a text: the last 60 are held out."""
    found = [" ".join(text[at : at + 80].split()) for at in range(0, len(text) - 80, 80)]
    return random.sample(found, 360)


sources = "".join(inspect.getsource(module) for module in (inspect, json.decoder, random))
sums = " ".join(f"{n * n} / {n + 7} = {n * n / (n + 7):.5f};" for n in range(2000))
texts = {
    "prose": pieces(" ".join(map(str, pydoc_data.topics.topics.values()))),
    "code": pieces(sources),
    "sums": pieces(sums),
}


def train(model, some, rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(30):
        ids = torch.stack([masked_words.encode(piece)[0] for piece in random.sample(some, 16)])
        mask = torch.rand(ids.shape) < 0.15
        labels = ids.masked_fill(~mask, -100)
        model(input_ids=ids.masked_fill(mask, masked_words.MASK), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
config = BertConfig(vocab_size=129, num_attention_heads=2, max_position_embeddings=64, **sizes)
base = BertForMaskedLM(config)
train(base, [piece for some in texts.values() for piece in some[:300]], 6e-3)
base.save_pretrained(out / "base")
for name, some in texts.items():
    expert = BertForMaskedLM.from_pretrained(out / "base")
    train(expert, some[:300], 2e-4)
    expert.save_pretrained(out / name)
    lines = (json.dumps({"text": piece}) + "\n" for piece in some[300:])
    (out / f"{name}.jsonl").write_text("".join(lines))

pool = {
    "sizes": [{"base": "base", "experts": {name: name for name in texts}}],
    "data": {name: f"{name}.jsonl" for name in texts},
    "methods": {"average": {}},
}
(out / "pool.yml").write_text(json.dumps(pool))

# The same as `mergeplan calibrate pool.yml -o run --for select --scorer scorers/masked_words.py`.
scorer = mergeplan.load_scorer(masked_words.__file__)
setup = mergeplan.Setup(mergeplan.EvaluationOptions(scorer=scorer), device="cpu")
options = mergeplan.CalibrateOptions(choosing=mergeplan.ChoiceGoal(), setup=setup)
print(mergeplan.calibrate(out / "pool.yml", out / "run", options).summary())
