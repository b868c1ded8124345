"""Checkpoints and pools to spread over a cluster, of any size."""

from pathlib import Path

from tests.support.pools import NAMES, write_pool
from tests.support.runs import make_pool
from tests.support.settings import DEMO_POOL


def write_merge(folder: Path, tensors: int, side: int, method: str = "ties") -> Path:
    """A base and three experts of square bfloat16 tensors; returns the config of a merge."""
    pool = make_pool(folder, tensors, (side, side))
    config = folder / "merge.yml"
    config.write_text(pool.config(method))
    return config


def write_calibration(folder: Path, width: int) -> Path:
    """A pool of byte models of a width, with random weights; returns its `pool.yml`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(DEMO_POOL / "base")
    config.hidden_size, config.intermediate_size = width, 3 * width
    model = AutoModelForCausalLM.from_config(config)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_POOL / "base")
    for name in ("base", *NAMES):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1e-3 * torch.randn_like(parameter))
    experts = {name: str(folder / name) for name in NAMES}
    return write_pool(folder, sizes=[{"base": str(folder / "base"), "experts": experts}])
