"""The files of a merge as others get them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from mergeplan.checkpoints.checkpoint import CONFIG_FILE, INDEX_ENDING
from mergeplan.hub.paths import refuse_paths, without_paths
from mergeplan.merging.card import Card
from mergeplan.merging.checked import CheckedMerge
from mergeplan.merging.manifest import NAME as MANIFEST
from mergeplan.merging.manifest import InputFile, InputModel, Manifest
from mergeplan.merging.replacing import CARD, CARD_CONFIG
from mergeplan.system.reading import VOCABULARY, read_bytes

# Bytes of a small file, or the path of one.
Files = dict[str, bytes | str]


def check_planned(merge: CheckedMerge, card: Card, title: str) -> None:
    """Check what is known before the merge of the files beside the weights.

    Raises:
        InputError: One would be published with a path of this machine.
    """
    donor = merge.plan.donor
    planned = {name: read_bytes(donor.path / name, VOCABULARY) for name in merge.copied}
    planned[CONFIG_FILE] = json.dumps(merge.plan.model_config).encode()
    planned |= merge.plan.companions.files if merge.plan.companions else {}
    _public(merge, card, title, planned)


def files_of(merge: CheckedMerge, card: Card, title: str, manifest: Manifest) -> Files:
    """What the manifest lists, and the index; the card, settings and manifest in words for others.

    Args:
        title: The card's heading.
        manifest: Of the merge, which is there.

    Raises:
        InputError: One would be published with a path of this machine.
    """
    out = merge.out
    indices = [path.name for path in out.iterdir() if path.name.endswith(INDEX_ENDING)]
    small = {*manifest.companions, *indices}
    before = {name: read_bytes(out / name, VOCABULARY) for name in small}
    public = _public(merge, card, title, before)
    own = {name: content for name, content in public.items() if content != before.get(name)}
    own[MANIFEST] = _for_others(manifest, card, own)
    refuse_paths({MANIFEST: own[MANIFEST]}, _places(merge))
    return {name: str(out / name) for name in {*manifest.files, *small}} | own


def _public(
    merge: CheckedMerge, card: Card, title: str, files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The card, and files without paths."""
    public = {name: without_paths(name, content) for name, content in files.items()}
    public |= {CARD: card.text(title).encode(), CARD_CONFIG: card.config_text.encode()}
    refuse_paths(public, _places(merge))
    return public


def _places(merge: CheckedMerge) -> list[Path]:
    """Where the merge is, and all that it is made of."""
    stored = merge.plan.stored
    files = {file.parent for model in stored for file in model.files}
    return [merge.out, *(model.path for model in stored), *files]


def _for_others(manifest: Manifest, card: Card, own: Mapping[str, bytes]) -> bytes:
    """The manifest with names instead of paths, and nothing of the disks here."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in own.items()}
    public = replace(
        manifest,
        config=card.config_text,
        inputs=tuple(
            InputModel(
                card.names.of(model.model),
                tuple(
                    InputFile(PurePosixPath(file.path).name, file.bytes, 0) for file in model.files
                ),
            )
            for model in manifest.inputs
        ),
        companions={**manifest.companions, **hashes},
        left_out={name: card.names.within(why) for name, why in manifest.left_out.items()},
    )
    return (json.dumps(asdict(public), indent=2) + "\n").encode()
