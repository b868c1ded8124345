"""How many of scikit-learn's digits a small classifier reads right.

The documents are images, which come from scikit-learn and from no file of the pool.
"""

import torch
from safetensors.torch import load_model as load_weights
from sklearn.datasets import load_digits

METRIC, BETTER = "accuracy", "higher"
HELD_OUT = 1000  # from this image on none was trained on


def classifier():
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def load_model(path, dtype, device):
    model = classifier()
    load_weights(model, path / "model.safetensors")
    return model.to(device)


def load_documents(path):
    digits = load_digits()
    pairs = zip(digits.data[HELD_OUT:] / 16, digits.target[HELD_OUT:], strict=True)
    return [{"pixels": pixels, "digit": int(digit)} for pixels, digit in pairs]


def score(model, documents):
    """1 for each image that is read right, of 1."""
    device = next(model.parameters()).device
    pixels = torch.stack([torch.tensor(one["pixels"]) for one in documents]).float().to(device)
    read = model(pixels).argmax(1).tolist()
    return [(float(digit == one["digit"]), 1) for digit, one in zip(read, documents, strict=True)]
