"""mergekit's YAML, and both programs that run it."""

from pathlib import Path
from typing import Any

import yaml

from mergeplan.config.config import parse_config
from mergeplan.merging.merge import MergeReport, merge
from mergeplan.merging.options import MergeOptions


def config_text(
    method: str,
    models: list[Path],
    *,
    base: Path | None = None,
    per_model: list[dict[str, Any]] | None = None,
    parameters: dict[str, Any] | None = None,
    **top: Any,
) -> str:
    """A mergekit YAML."""
    entries: list[dict[str, Any]] = []
    for number, model in enumerate(models):
        entry: dict[str, Any] = {"model": str(model)}
        if per_model and per_model[number]:
            entry["parameters"] = per_model[number]
        entries.append(entry)
    data: dict[str, Any] = {"merge_method": method, "models": entries, **top}
    if base is not None:
        data["base_model"] = str(base)
    if parameters:
        data["parameters"] = parameters
    return yaml.safe_dump(data, sort_keys=False)


def run_mergeplan(text: str, out: Path, **options: Any) -> MergeReport:
    """Merge with the Rust core."""
    return merge(parse_config(text), out, MergeOptions(**options))


def run_mergekit(text: str, out: Path, **options: Any) -> None:
    """Merge with mergekit 0.1.5, one thread, in this process."""
    import torch
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions as MergekitOptions

    torch.set_num_threads(1)
    # A class attribute: it would otherwise serve the checkpoints of an earlier test.
    LoaderCache.loaders = {}
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, str(out), MergekitOptions(quiet=True, **options), config_source=text)
