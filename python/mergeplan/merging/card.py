"""The model card, in the form that the hub reads."""

from pathlib import Path

import yaml

from mergeplan._native import __version__
from mergeplan.checkpoints.names import hub_ids
from mergeplan.config.config import MergeConfig
from mergeplan.display.text import printable
from mergeplan.merging.replacing import CARD, CARD_CONFIG
from mergeplan.planning.plan import MergePlan
from mergeplan.system.writing import write_durably

HUB = "https://huggingface.co"


def write_card(folder: Path, name: str, config: MergeConfig, plan: MergePlan) -> None:
    """README.md, and the config verbatim under mergekit's name for it."""
    method = config.method
    title = f"[{method.title}]({method.reference_url})" if method.reference_url else method.title
    on_base = f" on top of {_linked(config.compared_with)}" if config.compared_with else ""
    models = [model.path for model in config.models]
    front = {
        "base_model": list(dict.fromkeys(hub_id for model in models for hub_id in hub_ids(model))),
        "library_name": "transformers",
        "tags": ["mergekit", "merge", "mergeplan"],
    }
    bullets = "\n".join(f"- {_linked(model)}" for model in models if model != config.compared_with)
    card = f"""---
{yaml.safe_dump(front, sort_keys=False).rstrip()}
---
# {printable(name)}

Merged by mergeplan {__version__} with the method {title}{on_base}.
Seed of random masks: {plan.data.seed}.

## Models

{bullets}

{_left_out(plan.left_out)}## Configuration

```yaml
{config.text.rstrip()}
```
"""
    write_durably(folder / CARD, card, replace=True)
    write_durably(folder / CARD_CONFIG, config.text, replace=True)


def _left_out(left_out: dict[str, str]) -> str:
    """A section on the tensors that the output lacks, if there are any."""
    if not left_out:
        return ""
    lines = "\n".join(f"- `{name}`: {reason}" for name, reason in left_out.items())
    return f"## Left out\n\nSome model has these tensors, and the output has not:\n\n{lines}\n\n"


def _linked(model: str) -> str:
    """A model's name, which leads to the hub where it is from there."""
    found = hub_ids(model)
    return f"[{model}]({HUB}/{found[0]})" if found else f"`{model}`"
