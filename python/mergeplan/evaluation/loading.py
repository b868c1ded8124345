"""Models and tokenizers from local folders, with errors that say what is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.opening import open_stored
from mergeplan.checkpoints.tokenizer import VOCABULARIES
from mergeplan.errors import InputError, MissingInputError, raise_all
from mergeplan.evaluation.options import DTYPES
from mergeplan.evaluation.scorer import Scorer
from mergeplan.merging.copies import give_weights
from mergeplan.merging.options import MergeOptions
from mergeplan.merging.streaming import Sweep
from mergeplan.system.devices import check_gpu, parse_device

# No code from a model's folder runs, and nobody is asked whether it may.
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
_INSTALL = "pip install 'mergeplan[eval]'"


def import_transformers() -> Any:
    """The package, or an error that says how to get it.

    Raises:
        MissingInputError: torch or transformers is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingInputError(
            f"evaluating needs torch and transformers: {error}", f"install them: `{_INSTALL}`"
        ) from error
    return transformers


def set_threads(threads: int) -> None:
    """Let torch use so many, in this whole process."""
    import_transformers()
    import torch

    torch.set_num_threads(threads)


def load_tokenizer(folder: Path) -> Any:
    """A model's tokenizer.

    Raises:
        InputError: The folder has none, or one that transformers cannot read.
    """
    transformers = import_transformers()
    place = _place(folder, open_stored(str(folder)))
    if not any((place / name).is_file() for name in VOCABULARIES):
        raise MissingInputError(
            f"model `{folder}` has no tokenizer: expected a `tokenizer.json` or another vocabulary",
            "copy the tokenizer's files from the base into the folder",
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(place, **_LOCAL)
    except Exception as error:
        raise InputError(f"cannot read the tokenizer of `{folder}`: {_line(error)}") from error


def load_model_config(folder: Path) -> Any:
    """A model's `config.json`, as transformers understands it.

    Raises:
        InputError: There is none, or its architecture is unknown.
    """
    transformers = import_transformers()
    if folder.is_file():
        open_stored(str(folder), shard_too=True)  # which says what it is where it is no weights
        raise InputError(f"model `{folder}` is a file", "give the folder that holds it")
    checkpoint = open_stored(str(folder))
    config, place = checkpoint.config, _place(folder, checkpoint)
    if not config:
        raise MissingInputError(
            f"model `{folder}` has no `config.json`", "copy the base's into the folder"
        )
    try:
        found = transformers.AutoConfig.from_pretrained(place, **_LOCAL)
    except Exception as error:
        if config.get("model_type") in transformers.CONFIG_MAPPING:
            raise InputError(
                f"`{folder}/config.json`: transformers {transformers.__version__} refuses it:"
                f" {_line(error)}"
            ) from error
        raise InputError(
            f"`{place}/config.json`: transformers {transformers.__version__} knows no"
            f" `model_type` `{config.get('model_type', '')}`: {_line(error)}",
            "a newer transformers may know it: `pip install -U transformers`",
        ) from error
    if type(found) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(
            f"`{place}/config.json`: `model_type` `{found.model_type}` is no causal language model"
        )
    return found


def load_model_configs(folders: Sequence[Path]) -> list[Any]:
    """The same of several models.

    Raises:
        InputError: As for `load_model_config`, of all that have a fault.
    """
    found, faults = [], []
    for folder in folders:
        try:
            found.append(load_model_config(folder))
        except InputError as error:
            faults.append(error)
    if faults:
        raise_all(faults)
    return found


def _place(folder: Path, checkpoint: Checkpoint) -> Path:
    """Where a model's config and tokenizer lie: those of an adapter's base."""
    return folder if folder.is_dir() and not checkpoint.is_adapted else checkpoint.path


def load_model(folder: Path, *, dtype: str = "auto", device: str = "auto") -> Any:
    """A causal language model, ready to score.

    Args:
        folder: A model's, an adapter's, or `base+adapter`, which is merged in memory.
        dtype: `auto` for the checkpoint's own.
        device: `auto` for CUDA where there is one.

    Raises:
        InputError: There is no such model or device, its architecture is unknown, or tensors are
            missing or misshaped.
    """
    transformers = import_transformers()
    import torch

    if dtype not in DTYPES:
        raise InputError(f"`dtype`: expected {', '.join(DTYPES)}, found `{dtype}`")
    place = find_device(device)
    config = load_model_config(folder)
    checkpoint = open_stored(str(folder))
    if checkpoint.is_adapted:
        model = load_model(checkpoint.path, dtype=dtype, device=device)
        merge = {"merge_method": "passthrough", "models": [{"model": str(folder)}]}
        options = MergeOptions(threads=torch.get_num_threads())
        give_weights(Sweep(merge, options), [(0, model)])
        return model
    # transformers knows no shards without their index.
    alone = isinstance(checkpoint.weights, tuple)
    known = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    # Our own line is the only one that a user watches.
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, found = (known if alone else transformers.AutoModelForCausalLM).from_pretrained(
            None if alone else folder,
            state_dict=_state_dict(checkpoint) if alone else None,
            config=config,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            output_loading_info=True,
            # Else it raises, and says in a log alone which they are.
            ignore_mismatched_sizes=True,
            **_LOCAL,
        )
    except Exception as error:
        raise InputError(
            f"cannot load `{folder}` as a causal language model: {_line(error)}"
        ) from error
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    # transformers would go on, with random weights in their place.
    for what, are in (("missing_keys", "missing"), ("mismatched_keys", "of another shape")):
        if found[what]:
            first = sorted(found[what])[0]
            name = first if isinstance(first, str) else first[0]  # of a shape that differs, both
            raise InputError(
                f"model `{folder}`: `config.json` asks for tensors that are {are} in the"
                f" checkpoint, {len(found[what])} in all, such as `{name}`",
                "config.json and the weights belong to different models",
            )
    return model.to(place).eval()


def load_for_measure(
    folder: Path, scorer: Scorer | None, *, dtype: str = "auto", device: str = "auto"
) -> Any:
    """A model as a scorer loads it; else a causal language model, for a scorer with its tokenizer
    as `model.tokenizer`.

    Raises:
        InputError: As for `load_model`, or the scorer fails.
    """
    if scorer is None:
        return load_model(folder, dtype=dtype, device=device)
    import_transformers()
    own = scorer.load_model(folder, dtype, find_device(device))
    if own is not None:
        return own
    model = load_model(folder, dtype=dtype, device=device)
    model.tokenizer = load_tokenizer(folder)
    return model


def _state_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """All tensors of shards, in maps of their files where these are safetensors."""
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for file in checkpoint.files:
        if file.suffix == ".safetensors":
            tensors |= load_file(file)
        else:
            tensors |= torch.load(file, weights_only=True, map_location="cpu", mmap=True)
    return tensors


def context_of(config: Any) -> int | None:
    """Most tokens that a model takes; `None` where its config does not say."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        length = getattr(text, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def find_device(name: str) -> str:
    """The device that a model is scored on, as torch calls it.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        MissingInputError: torch or transformers is not installed.
        InputError: torch finds no such GPU.
    """
    import_transformers()
    import torch

    kind, number = parse_device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return "cuda" if count else "cpu"
    if kind == "cuda":
        check_gpu(name, number, count, "take `cpu`")
    return name


def _line(error: Exception) -> str:
    """An error of another package on one line, cut where it becomes a treatise."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
