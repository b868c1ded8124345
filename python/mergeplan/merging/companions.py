"""The files around the weights: config.json, tokenizer and index."""

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path

from mergeplan._native import __version__
from mergeplan.checkpoints.checkpoint import CONFIG_FILE, INDEX_ENDING, Checkpoint
from mergeplan.checkpoints.content import same_content
from mergeplan.checkpoints.donated import donated_by
from mergeplan.checkpoints.head_names import embedding_of, heads_in
from mergeplan.checkpoints.heads import untied
from mergeplan.checkpoints.lfs import refuse_pointer
from mergeplan.checkpoints.tokenizer import VOCABULARIES
from mergeplan.planning.plan import Companions, MergePlan
from mergeplan.system.files import check_readable
from mergeplan.system.writing import copy_durably, write_durably

# Room for what does not grow with the model: card, config in some places, heads, locks.
_OWN_BYTES = 1_000_000
# Of record, manifest, index and two journals for a tensor; beside its name, for each time it stands
# there; for an input file. The record has 130 + (inputs + 1) · (60 + name) for a tensor.
_TENSOR_BYTES, _NAME_BYTES, _FILE_BYTES = 300, 60, 400
# Of both journals for 65,536 elements.
_BLOCK_BYTES = 48
# So many files that stay behind are named.
_NAMED = 8


def write_config(folder: Path, plan: MergePlan, hashes: dict[str, str]) -> None:
    """The planned `config.json`, with the dtype and the tying that the merged tensors have.

    Args:
        hashes: Content hash of each tensor.
    """
    if not plan.model_config:
        return
    config = dict(plan.model_config)
    key = "dtype" if "dtype" in config else "torch_dtype"
    if not plan.donor.is_component:  # diffusers keeps no dtype in it
        config[key] = plan.out_dtype
    if plan.unties_head or _has_own_head(plan.donor, hashes):
        config = untied(config)
    write_durably(folder / CONFIG_FILE, json.dumps(config, indent=2) + "\n", replace=True)


def _has_own_head(donor: Checkpoint, hashes: dict[str, str]) -> bool:
    """Whether some head has parted from its embedding, so that loaders must not tie it.

    A checkpoint may hold a head and say that it is tied; they part where options differ. Where they
    differ in the donor already, its config.json speaks of other tensors: Luke's ties another head.
    """
    for head in heads_in(hashes):
        other = embedding_of(head, hashes)
        if other is not None and hashes[head] != hashes[other]:
            stored = not donor.made and {head, other} <= donor.tensors.keys()
            most = donor.tensors[head].n_bytes if stored else 0
            if not stored or same_content((donor, head), (donor, other), most):
                return True
    return False


def write_planned(folder: Path, companions: Companions) -> None:
    """The files that the planner made or chose."""
    for name, content in companions.files.items():
        write_durably(folder / name, content, replace=True)


def copied_names(plan: MergePlan, *, tokenizer: bool) -> list[str]:
    """Files of the donor that go into the output as they are: tokenizer, settings and code.

    Args:
        tokenizer: Whether tokenizer and settings are wanted; code that config.json names always is.
    """
    found = donated_by(plan.donor, settings=tokenizer)
    return found.names(tokenizer=tokenizer and _copies_tokenizer(plan), settings=tokenizer)


def companion_bytes(plan: MergePlan, names: Iterable[str]) -> int:
    """Bytes beside the weights at most: files that are copied, and what the merge writes itself.

    Raises:
        MissingInputError, InputError: A file that would be copied cannot be read.
    """
    copied = sum(check_readable(plan.donor.path / name) for name in names)
    return _OWN_BYTES + copied + _written_bytes(plan)


def _written_bytes(plan: MergePlan) -> int:
    found = 2 * len(json.dumps(plan.model_config))
    found += sum(_FILE_BYTES + 2 * len(str(path)) for path in plan.input_paths)
    found += sum(2 * len(name) + len(why) for name, why in plan.left_out.items())
    if plan.companions is not None:
        found += sum(map(len, plan.companions.files.values()))
    for job in plan.data.jobs:
        often = len(job.merge.references) + 1 + 2  # in the record, the manifest and the index
        blocks = -(-prod(job.shape) // 65_536)
        found += _TENSOR_BYTES + often * (_NAME_BYTES + len(job.tensor)) + blocks * _BLOCK_BYTES
    return found


def copy_donated(folder: Path, plan: MergePlan, names: Iterable[str]) -> None:
    """Copy files of the donor."""
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_durably(plan.donor.path / name, target, replace=True)


def missing_companions(plan: MergePlan) -> list[str]:
    """What the donor lacks or keeps, so that nobody expects it in the output.

    Raises:
        MissingInputError: A file that would be copied was not fetched.
    """
    donor = plan.donor
    found = []
    if not donor.config:
        found.append(f"`{donor.name}` has no config.json: the output cannot be loaded without one")
    has_tokenizer = any(path for name in VOCABULARIES for path in donor.path.glob(name))
    if not has_tokenizer and not donor.is_component:
        found.append(f"`{donor.name}` has no tokenizer that could be copied")
    given = donated_by(donor)
    for name in given.names(tokenizer=_copies_tokenizer(plan), settings=True):
        refuse_pointer(donor.path / name)
        if leads_out(donor.path, name):
            found.append(
                f"`{donor.path / name}` is a link to `{(donor.path / name).resolve()}`, outside its"
                " model's folder: what is there goes into the output"
            )
    found += [
        f"`{donor.name}` has no file `{name}`, which its `{who}` names: the output cannot run it"
        for name, who in given.code.missing.items()
    ]
    found += [
        f"the code of `{donor.name}` is in the repository `{repository}`, and is not copied: what"
        " loads the output takes it from there"
        for repository in given.code.elsewhere
    ]
    found += [
        f"the weights of the module `{donor.path / name}` are not merged, and stay behind:"
        " sentence-transformers cannot load the output without them; copy them where they may stay"
        " as they are"
        for name in given.left_weights
    ]
    if given.left and donor.whole_folder:
        names = ", ".join(f"`{name}`" for name in given.left[:_NAMED])
        more = f" and {len(given.left) - _NAMED} more" if len(given.left) > _NAMED else ""
        found.append(f"`{donor.name}`: {names}{more} stay behind: nothing says what they are for")
    return found


def _copies_tokenizer(plan: MergePlan) -> bool:
    return plan.companions is None or plan.companions.copies_tokenizer


def leads_out(folder: Path, name: str) -> bool:
    """Whether a file of a model is a link out of its folder, and not into the hub's cache."""
    place, home = (folder / name).resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    return not (place.is_relative_to(home) or place.is_relative_to(blobs))


def write_index(
    folder: Path, stem: str, files: list[tuple[str, int, list[str]]], tensor_bytes: int
) -> None:
    """The shard index, where there is more than one shard.

    Args:
        stem: How the names of the shards begin.
        files: Name, length and tensors of each shard.
        tensor_bytes: Bytes of all tensors, without headers.
    """
    if len(files) < 2:
        return
    index = {
        "metadata": {"total_size": tensor_bytes, "mergeplan_version": __version__},
        "weight_map": {tensor: name for name, _, tensors in files for tensor in tensors},
    }
    path = folder / f"{stem}{INDEX_ENDING}"
    write_durably(path, json.dumps(index, indent=2) + "\n", replace=True)
