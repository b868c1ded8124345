"""Models of the Hugging Face hub, found in its cache or downloaded there by huggingface_hub."""

import re
from contextlib import suppress
from pathlib import Path

from mergeplan.errors import MissingInputError, SurroundingsError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?(?:@[\w./-]+)?")
# Everything that a merge reads or copies, and weights of the one format that is there.
_SMALL = [
    *("*.json", "*.jinja", "*.txt", "*.py"),
    *("*.model", "*.spm", "*.tiktoken", "*.tokenizer", "*.bpe", "*.codes"),
]
_NOT_ITS_OWN = ["*/*"]
# What is copied from deeper, where a pattern's `*` spans folders: chat templates, and the modules
# of sentence-transformers, which are numbered.
_DEEPER = ["additional_chat_templates/*.jinja", "[0-9]_*/*.json", "[0-9]_*/*.txt"]


def is_hub_id(name: str) -> bool:
    """Whether a name can be one of the hub: `org/name` or `name`, with or without `@revision`."""
    return _ID.fullmatch(name) is not None


def find_model(name: str, *, cache: str | None, download: bool) -> Path:
    """Folder of a model's files.

    Args:
        cache: The hub's cache; `None` for the default.
        download: Fetch what the cache lacks. `HF_HUB_OFFLINE` forbids it.

    Raises:
        MissingInputError: It is not in the cache, or not on the hub, or huggingface_hub is not
            installed.
        SurroundingsError: The hub cannot be reached.
    """
    model, _, revision = name.partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise MissingInputError(
            f"model `{name}` is not a folder",
            "if it is a hub id: `pip install 'mergeplan[hub]'`",
        ) from error

    def snapshot(patterns: list[str], ignored: list[str] = _NOT_ITS_OWN) -> Path:
        return Path(
            snapshot_download(
                model,
                revision=revision or None,
                cache_dir=cache,
                allow_patterns=patterns,
                ignore_patterns=ignored,
                local_files_only=not download,
            )
        )

    try:
        folder = snapshot([*_SMALL, "*.safetensors"])
        if download and not any(folder.glob("*.safetensors")):
            folder = snapshot([*_SMALL, "*.bin"])
        if download:
            snapshot(_DEEPER, [])
            # For its licence: whoever works offline from an older cache goes without.
            with suppress(LocalEntryNotFoundError):
                snapshot(["README.md"])
    except LocalEntryNotFoundError as error:
        which = f"{model} --revision {revision}" if revision else model
        raise MissingInputError(
            f"model `{name}` is not a folder, and not in the hub's cache",
            f"if it is a hub id: `hf download {which}`",
        ) from error
    except GatedRepoError as error:
        raise MissingInputError(
            f"model `{name}` is gated: the hub gives it to those alone who accepted its conditions",
            "accept them on its page, then log in with that account: `hf auth login`, or HF_TOKEN",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as e:
        raise MissingInputError(
            f"model `{name}` is not a folder, and not on the hub: {_first_line(e)}",
            "check the name; private models need `hf auth login`",
        ) from e
    except OSError as error:
        raise SurroundingsError(f"cannot download `{name}`: {_first_line(error)}") from error
    return folder.resolve()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
