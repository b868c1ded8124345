"""YAML that is no merge's: a pool, or what is for mergekit's other programs."""

from typing import Any

from mergeplan.errors import InputError
from mergeplan.system.yamlfile import count_documents

# Keys that tell, what it is, and what runs it.
_OTHERS = (
    (
        ("experts", "gate_mode", "shared_experts"),
        "one of a mixture of experts",
        "mergekit-moe CONFIG.yml OUT_DIR",
    ),
    (
        ("genome",),
        "one of an evolutionary search",
        "mergekit-evolve CONFIG.yml --storage-path DIR",
    ),
)


def refuse_several(text: str) -> None:
    """Name a file with several documents.

    Raises:
        InputError: It has more than one.
    """
    count = count_documents(text)
    if count > 1:
        raise InputError(
            f"expected one YAML document, found {count}, as mergekit-multi takes them",
            "`mergekit-multi CONFIG.yml --intermediate-dir DIR` runs them; or put each into a file"
            " of its own, and merge them one after the other",
        )


def refuse_other_tools(data: dict[str, Any]) -> None:
    """Name the configs that are no merge of this kind.

    Raises:
        InputError: It is one of them.
    """
    if "sizes" in data and "merge_method" not in data:
        raise InputError(
            "it is a pool, and no config of a merge: it has `sizes`",
            "`mergeplan calibrate` measures merges of a pool, and `mergeplan check` looks at it",
        )
    for keys, what, command in _OTHERS:
        found = [key for key in keys if key in data]
        if found and "merge_method" not in data:
            raise InputError(
                f"the config is {what}: it has `{found[0]}`",
                f"mergeplan does not build these; mergekit does: `{command}`",
            )
