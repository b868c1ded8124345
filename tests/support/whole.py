"""One config of the conformance suite, and how both programs run it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergeplan.errors import InputError
from tests.support.merges import run_mergekit, run_mergeplan
from tests.support.outputs import assert_same_output


@dataclass(frozen=True)
class Whole:
    """A config over the zoo's models.

    Attributes:
        text: YAML, where `ZOO` stands for the zoo's folder.
        by_chance: Whether chance decides the values.
        shard_bytes: Where a shard of the output ends.
        loses: Whether mergekit leaves out tensors, which we refuse unless asked to.
    """

    name: str
    text: str
    by_chance: bool = False
    shard_bytes: int = 5_000_000_000
    loses: bool = False

    def __str__(self) -> str:
        return self.name


def assert_same_merge(case: Whole, zoo: Path, folder: Path) -> None:
    """Run a config by mergekit and by mergeplan, and compare what they leave.

    The caller has `mergekit_in_config_order` in force.
    """
    text = case.text.replace("ZOO", str(zoo))
    config: dict[str, Any] = yaml.safe_load(text)
    run_mergekit(text, folder / "theirs", out_shard_size=case.shard_bytes)
    options = {"max_shard_bytes": case.shard_bytes, "packed_experts": True}
    if case.loses:
        with pytest.raises(InputError, match="mergekit's plan leaves out tensor"):
            run_mergeplan(text, folder / "ours", **options)
        options["allow_left_out"] = ("*",)
    run_mergeplan(text, folder / "ours", **options)
    base = None
    if case.by_chance:
        name = config["base_model"]
        base = next(
            (zoo / "hub").glob(f"models--{name.replace('/', '--')}/snapshots/*"), Path(name)
        )
    assert_same_output(folder / "ours", folder / "theirs", config, base)


def use_hub_cache(monkeypatch: pytest.MonkeyPatch, cache: Path, lists_files: bool = True) -> None:
    """Let both programs find models in a hub cache; nothing asks the network.

    mergekit cannot work offline: it asks the hub for a model's list of files before it looks into
    the cache. With `lists_files` the list is answered from the cache.
    """
    import huggingface_hub
    from huggingface_hub import constants

    def list_files(name: str, **_: Any) -> list[str]:
        repository = cache / f"models--{name.replace('/', '--')}"
        revision = (repository / "refs" / "main").read_text()
        return sorted(path.name for path in (repository / "snapshots" / revision).iterdir())

    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    if lists_files:
        monkeypatch.setattr(huggingface_hub, "list_repo_files", list_files)


def mergekit_in_config_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mergekit list a config's models, and the tokens of a union, in a fixed order.

    It keeps models in a set, so that without a base the donor of config and tokenizer changes from
    process to process, and vocabularies come in the order of a hash table. In this order, which is
    mergeplan's, the donor is the first model.
    """
    from mergekit.config import MergeConfiguration
    from transformers import PreTrainedTokenizerFast

    by_chance = MergeConfiguration.referenced_models

    def ordered(config: MergeConfiguration) -> list[Any]:
        text = config.model_dump_json(exclude_none=True)

        def place(model: Any) -> int:
            found = re.search(rf'"{re.escape(str(model))}"', text)
            return found.start() if found else len(text)

        return sorted(by_chance(config), key=place)

    monkeypatch.setattr(MergeConfiguration, "referenced_models", ordered)
    owner = next(c for c in PreTrainedTokenizerFast.__mro__ if "get_vocab" in vars(c))
    as_hashed = owner.get_vocab
    monkeypatch.setattr(
        owner,
        "get_vocab",
        lambda self: dict(sorted(as_hashed(self).items(), key=lambda entry: entry[1])),
    )
