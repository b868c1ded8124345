"""Every class of the installed transformers that has a language-model head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# transformers' own lists, and what a table calls them.
TASKS = {
    "CAUSAL_LM": "causal",
    "IMAGE_TEXT_TO_TEXT": "vision",
    "SEQ_TO_SEQ_CAUSAL_LM": "sequence to sequence",
    "MULTIMODAL_LM": "multimodal",
    "SPEECH_SEQ_2_SEQ": "speech",
    "MASKED_LM": "masked",
}


@dataclass(frozen=True)
class Species:
    """A class of models.

    Attributes:
        name: Of the class in transformers.
        model_type: As config.json says it.
        tasks: What it is listed for, in the words of `TASKS`.
    """

    name: str
    model_type: str
    tasks: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.model_type}.{self.name}"

    @property
    def model_class(self) -> Any:
        import transformers

        return getattr(transformers, self.name)

    @property
    def config_class(self) -> Any:
        """The class's own config, or a type's that builds on it."""
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        own = self.model_class.config_class
        of_type = CONFIG_MAPPING[self.model_type]
        return of_type if issubclass(of_type, own) else own


def all_species() -> list[Species]:
    """In the order of transformers' lists. No class is imported."""
    from transformers.models.auto import modeling_auto

    found: dict[tuple[str, str], list[str]] = {}
    for mapping, task in TASKS.items():
        names: Mapping[str, str] = getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES")
        for model_type, name in names.items():
            found.setdefault((model_type, name), []).append(task)
    return [Species(name, model_type, tuple(tasks)) for (model_type, name), tasks in found.items()]
