"""Measure a pool's weighted averages the plain way: merge in torch, load, score.

This wrote `python/mergeplan/demo/pool/measurements.csv`. It needs torch and transformers, takes
about half a second for each merge of the smallest pool on one core, and shares no code with the
package, so that it can also serve as an oracle.

    python tests/tools/measure_pool.py POOL_DIR EVAL_DIR OUT.csv --scale average=1.0 --sizes 1,2,4,9

DARE masks an expert alike in every subset, so that its merges are weighted averages of the single
experts as DARE leaves them: `--experts` names their folder.
"""

import argparse
import csv
import itertools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
COLUMNS = ["method", "options", "n_params", "k", "subset", "domain", "loss_nats", "n_tokens"]


def load_texts(folder: Path, tokenizer) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Every domain as (ids, mask), both (texts, longest text), padded on the right."""
    domains = {}
    for path in sorted(folder.glob("*.jsonl")):
        texts = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
        rows = [tokenizer(text)["input_ids"] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        domains[path.stem] = (ids, mask)
    return domains


@torch.no_grad()
def loss_nats(model, ids: torch.Tensor, mask: torch.Tensor) -> tuple[float, int]:
    """Mean token cross-entropy in nats, and the number of tokens scored."""
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    nll = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), ids[:, 1:], reduction="none"
    )  # (texts, longest - 1)
    scored = mask[:, 1:].bool()
    return nll[scored].double().sum().item() / scored.sum().item(), int(scored.sum())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pool", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", action="append", default=[], help="label=c, sum of the weights")
    parser.add_argument("--experts", type=Path, help="their folder; default: the pool's")
    parser.add_argument("--sizes", help="k values, comma separated; default all")
    args = parser.parse_args()

    experts = args.experts or args.pool
    base = load_file(args.pool / "base" / "model.safetensors")
    names = sorted(p.name for p in experts.iterdir() if p.is_dir() and p.name != "base")
    deltas = {
        name: {
            key: tensor - base[key]
            for key, tensor in load_file(experts / name / "model.safetensors").items()
        }
        for name in names
    }
    tokenizer = AutoTokenizer.from_pretrained(args.pool / "base")
    model = AutoModelForCausalLM.from_pretrained(args.pool / "base", dtype=torch.float32).eval()
    n_params = sum(p.numel() for p in model.parameters())
    texts = load_texts(args.texts, tokenizer)
    sizes = [int(k) for k in args.sizes.split(",")] if args.sizes else range(1, len(names) + 1)

    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for setting in args.scale:
            label, _, scale = setting.partition("=")
            options = json.dumps({} if label == "average" else {"lambda": float(scale)})
            subsets = [()] + [s for k in sizes for s in itertools.combinations(names, k)]
            for subset in subsets:
                merged = {
                    key: tensor
                    + float(scale) * sum(deltas[name][key] for name in subset) / max(len(subset), 1)
                    for key, tensor in base.items()
                }
                model.load_state_dict(merged)
                for domain, (ids, mask) in texts.items():
                    loss, n_tokens = loss_nats(model, ids, mask)
                    merge = [label, options, n_params, len(subset), "+".join(subset)]
                    writer.writerow([*merge, domain, f"{loss:.6f}", n_tokens])


if __name__ == "__main__":
    main()
