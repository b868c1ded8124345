"""Which experts of a small image classifier to merge, by accuracy: a scorer's own models and data.

Each expert is trained here, in a moment, on the digits of other writers, from scikit-learn; the
scorer knows how to load such a model, which images to show it, and when it is right.

python examples/04_digits.py [DIR]      # needs torch and scikit-learn
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_model
from scorers import digits
from sklearn.datasets import load_digits

import mergeplan

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "digits"
# The images stand in the order of their writers.
experts = {"first": slice(100, 400), "second": slice(400, 700), "third": slice(700, 1000)}
data = load_digits()
pixels = torch.tensor(data.data[: digits.HELD_OUT] / 16, dtype=torch.float32)
labels = torch.tensor(data.target[: digits.HELD_OUT])


def train(model, some, steps):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        torch.nn.functional.cross_entropy(model(pixels[some]), labels[some]).backward()
        optimizer.step()
        optimizer.zero_grad()


def save(model, name):
    (out / name).mkdir(parents=True)
    save_model(model, out / name / "model.safetensors")
    (out / name / "config.json").write_text('{"model_type": "digits"}')


torch.manual_seed(0)
base = digits.classifier()
train(base, slice(0, 100), 20)
save(base, "base")
for name, writers in experts.items():
    expert = digits.classifier()
    expert.load_state_dict(base.state_dict())
    train(expert, writers, 40)
    save(expert, name)

sizes = [{"base": "base", "experts": {name: name for name in experts}}]
(out / "pool.yml").write_text(json.dumps({"sizes": sizes, "methods": {"average": {}}}))

# The same as `mergeplan calibrate pool.yml -o run --for select --scorer scorers/digits.py`.
scorer = mergeplan.load_scorer(digits.__file__)
setup = mergeplan.Setup(mergeplan.EvaluationOptions(scorer=scorer), device="cpu")
options = mergeplan.CalibrateOptions(choosing=mergeplan.ChoiceGoal(), setup=setup)
print(mergeplan.calibrate(out / "pool.yml", out / "run", options).summary())
