r"""Slopes by the experts' weights against central differences in float64.

    python -m tests.tools.slopes.differences POOL.yml --max-tokens 500 --sample 12

At equal weights of a seeded subset, for every domain and every expert at two steps, and for a
seeded sample of one expert's weight in one layer and kind of module. The truth shares nothing with
the package but the choice of documents: base and experts are read from their files (LoRA as B·A at
its scale) and everything is computed in float64, norms too, which transformers computes in float32.
What is printed is the largest error over the largest slope by an expert of that domain.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mergeplan.calibration.setup import Setup
from mergeplan.calibration.worker import load_for
from mergeplan.evaluation.loading import load_tokenizer
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.texts import Texts
from mergeplan.gradients.meter import Meter
from mergeplan.merging.copies import give_weights
from mergeplan.merging.slopes import Slopes
from mergeplan.merging.streaming import Sweep
from mergeplan.pool.pool import load_pool
from mergeplan.tuning.groups import Groups
from mergeplan.tuning.recipe import Recipe, choose_method


def delta_of(expert: Path, base: dict, dtype=torch.float64) -> dict:
    """What an expert adds to the base, by tensor, in float64.

    Args:
        dtype: To which base + adapter is rounded.
    """
    adapter = expert / "adapter_model.safetensors"
    if not adapter.exists():
        found = load_file(expert / "model.safetensors")
        return {name: found[name].double() - base[name] for name in found if name in base}
    config = json.loads((expert / "adapter_config.json").read_text())
    tensors, scale = load_file(adapter), config["lora_alpha"] / config["r"]
    found = {}
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            b = tensors[name.replace("lora_A", "lora_B")].double()
            plain = name.removeprefix("base_model.model.").replace("lora_A.", "")
            whole = base[plain] + scale * (b @ a.double())
            found[plain] = whole.to(dtype).double() - base[plain]
    return found


def plain_norms(model):
    """Norms that keep float64."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):

            def forward(x, module=module):
                return (
                    module.weight
                    * x
                    * torch.rsqrt(x.pow(2).mean(-1, True) + module.variance_epsilon)
                )

            module.forward = forward


class Truth:
    """The pool in float64, at some weights and moved from there."""

    def __init__(self, size, names, texts, weights, dtype):
        self.model = AutoModelForCausalLM.from_pretrained(size.base, dtype=torch.float64).eval()
        plain_norms(self.model)
        self.parameters = dict(self.model.named_parameters())
        base = {name: one.detach().clone() for name, one in self.parameters.items()}
        self.deltas = [delta_of(size.experts[name], base, dtype) for name in names]
        for weight, delta in zip(weights, self.deltas, strict=True):
            self.move(delta, weight)
        self.batches = texts.batches_by_domain(torch.device("cpu"), batch_tokens=2048)

    def move(self, delta, step):
        with torch.no_grad():
            for name, one in delta.items():
                self.parameters[name] += step * one

    @torch.inference_mode()
    def losses(self, domains):
        found = []
        for name in domains:
            total = count = 0
            for batch in self.batches[name]:
                logits = self.model(input_ids=batch.ids, use_cache=False).logits
                logits = logits[:, batch.ids.shape[1] - batch.keep :].flatten(0, 1)[batch.places]
                assert logits.dtype == torch.float64
                total += float(
                    torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum")
                )
                count += len(batch.targets)
            found.append(total / count)
        return np.array(found)

    def difference(self, delta, step, domains):
        self.move(delta, step)
        up = self.losses(domains)
        self.move(delta, -2 * step)
        down = self.losses(domains)
        self.move(delta, step)
        return (up - down) / (2 * step)


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--max-tokens", type=int, default=500, help="of each domain")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--domains", nargs="*", help="default: all")
    parser.add_argument("--experts", type=int, help="differences along so many only, seeded")
    parser.add_argument("--sample", type=int, default=12, help="of layer and kind")
    parser.add_argument("--steps", type=float, nargs=2, default=(1e-2, 2e-3))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora-exact", action="store_true", help="else base + LoRA in bfloat16")
    args = parser.parse_args()
    pool, random = load_pool(args.pool), np.random.default_rng(args.seed)
    (size,) = pool.sizes
    names, domains = list(size.experts), args.domains or list(pool.data)
    chosen = random.permutation(len(names))[: len(names) // 2]
    weights = np.isin(np.arange(len(names)), chosen) / len(chosen)
    options = EvaluationOptions(max_tokens=args.max_tokens, max_length=args.max_length)
    data = {name: pool.data[name] for name in domains}
    texts = Texts.prepare(data, load_tokenizer(size.base), options)
    label, settings = choose_method(pool, None)
    recipe = Recipe(
        label, settings, size.base, tuple(size.experts.values()), "float32",
        Groups("expert", ("all",), {}),
    )  # fmt: skip
    config = recipe.config(weights[:, None])
    setup = Setup(options, lora_exact=args.lora_exact)
    model, slopes = load_for(size.base, setup), Slopes(config, setup.streaming())
    give_weights(Sweep([config], setup.merging(model)), [(0, model)])
    found = Meter(model, texts, slopes).measure().slopes
    del model
    tensors = [job.tensor for job in slopes.jobs]
    groups = Groups.find(tensors, "layer,kind")
    whole = np.array([found[name].sum(0) for name in domains])  # (n_domains, n_experts)
    parts = np.array([groups.sums(tensors, found[name]) for name in domains])
    largest = np.abs(whole).max(1)
    dtype = torch.float64 if args.lora_exact else torch.bfloat16
    truth = Truth(size, names, texts, weights, dtype)
    print(f"{len(domains)} domains, largest slopes {largest.min():.4f} to {largest.max():.4f}")
    along = range(len(names))
    if args.experts:
        along = sorted(random.permutation(len(names))[: args.experts].tolist())
    some = [
        (int(random.integers(len(names))), int(random.integers(len(groups))))
        for _ in range(args.sample)
    ]
    for step in args.steps:
        off = [truth.difference(truth.deltas[e], step, domains) - whole[:, e] for e in along]
        worst = (np.abs(off) / largest).max()
        print(f"step {step:g}: {len(along)} experts: {worst:.1e} of the largest", flush=True)
        off = []
        for expert, group in some:
            delta = truth.deltas[expert]
            part = {t: delta[t] for t, one in groups.of.items() if one == group and t in delta}
            off.append(truth.difference(part, step, domains) - parts[:, group, expert])
        worst = (np.abs(off) / largest).max() if some else 0.0
        print(f"step {step:g}: {len(some)} of layer and kind: {worst:.1e}", flush=True)


if __name__ == "__main__":
    main()
