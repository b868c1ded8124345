"""The model card, in the form that the hub reads."""

from pathlib import Path

import yaml

from mergeplan._native import __version__
from mergeplan.config.config import MergeConfig
from mergeplan.display.markdown import code, fenced, heading
from mergeplan.merging.licence import Licence, Unreadable
from mergeplan.merging.licences import Licences, read_licences
from mergeplan.merging.public import PublicNames
from mergeplan.merging.replacing import CARD, CARD_CONFIG
from mergeplan.planning.plan import MergePlan
from mergeplan.system.writing import write_durably

HUB = "https://huggingface.co"
# Tensors that are left out; the manifest has them all.
_MOST_LISTED = 1000


class Card:
    """What a merge says of itself to others.

    Args:
        config: The merge's configuration.
        plan: What it comes to: which models are read, and which tensors are left out.
        licence: The one that the user sets; `None` for that in which the models' cards agree.

    Attributes:
        names: The models' names for others.
        licences: What the models' own cards say.
    """

    def __init__(self, config: MergeConfig, plan: MergePlan, licence: str | None = None) -> None:
        self._config, self._plan = config, plan
        self.names = PublicNames(config, [model.name for model in plan.stored])
        stored = [(self.names.of(model.name), model.path) for model in plan.stored]
        self.licences = read_licences(stored, licence)

    @property
    def config_text(self) -> str:
        """The YAML, with names of folders instead of paths."""
        return self.names.config_text

    def text(self, title: str) -> str:
        """README.md.

        Args:
            title: Its heading.
        """
        config, plan, names = self._config, self._plan, self.names
        method = config.method
        how = f"[{method.title}]({method.reference_url})" if method.reference_url else method.title
        base = config.compared_with
        on_base = f" on top of {self._linked(base)}" if base else ""
        listed = [model.path for model in config.models if model.path != base]
        bullets = "\n".join(f"- {self._linked(model)}" for model in listed)
        return f"""---
{yaml.safe_dump(self._front_matter(), sort_keys=False, allow_unicode=True).rstrip()}
---
# {heading(title)}

Merged by mergeplan {__version__} with the method {how}{on_base}.
Seed of random masks: {plan.data.seed}.

## Models

{bullets}

{_licences(self.licences)}{_left_out(plan.left_out, names)}## Configuration

{fenced(self.config_text.rstrip(), "yaml")}
"""

    def _front_matter(self) -> dict[str, object]:
        on_hub = self.names.on_hub
        licence = self.licences.licence
        return {
            "base_model": on_hub,
            **({"base_model_relation": "merge"} if on_hub else {}),
            "library_name": "diffusers" if self._plan.donor.is_component else "transformers",
            **(licence.front_matter() if licence else {}),
            "tags": ["mergekit", "merge", "mergeplan"],
        }

    def _linked(self, model: str) -> str:
        """A model's name, which leads to the hub where it is from there."""
        found = self.names.hub_ids(model)
        name = code(self.names.of(model))
        return f"[{name}]({HUB}/{found[0]})" if found else name


def write_card(folder: Path, title: str, card: Card) -> None:
    """Write README.md, and the config under mergekit's name for it.

    Args:
        folder: Where to; what is there already is replaced.
        title: The card's heading.

    Raises:
        SurroundingsError, OSError: They cannot be written.
    """
    write_durably(folder / CARD, card.text(title), replace=True)
    write_durably(folder / CARD_CONFIG, card.config_text, replace=True)


def _licences(licences: Licences) -> str:
    """A section on the licences of the models, and on that of the merge where there is none."""
    rows = [f"| {code(name)} | {_said(one)} |" for name, one in licences.of_models.items()]
    if licences.licence is not None:
        said = ""
    elif any(isinstance(one, Unreadable) for one in licences.of_models.values()):
        said = "\n\nNo licence is set for this merge: not all of its models' can be read."
    elif any(licences.of_models.values()):
        said = "\n\nNo licence is set for this merge: those of its models are not all the same."
    else:
        said = "\n\nNo licence is set for this merge: its models' cards state none."
    table = "\n".join(["| model | licence |", "|---|---|", *rows])
    return f"## Licences\n\n{table}{said}\n\n"


def _said(one: Licence | Unreadable | None) -> str:
    return code(one) if isinstance(one, Licence) else str(one or "none stated")


def _left_out(left_out: dict[str, str], names: PublicNames) -> str:
    """A section on the tensors that the output lacks, if there are any."""
    if not left_out:
        return ""
    listed = list(left_out.items())[:_MOST_LISTED]
    lines = [f"- {code(name)}: {names.within(why)}" for name, why in listed]
    lines += [f"- and {more:,} more"] if (more := len(left_out) - len(listed)) else []
    head = "## Left out\n\nSome model has these tensors, and the output has not:"
    return "\n".join([head, "", *lines, "", ""])
