"""Folders and files that hold no model: what they hold instead, and what to do about it."""

import codecs
import re
from pathlib import Path

from mergeplan.checkpoints.adapters.folder import CONFIG as ADAPTER_CONFIG
from mergeplan.checkpoints.checkpoint import CONFIG_FILE
from mergeplan.checkpoints.dtypes import FLOATS
from mergeplan.checkpoints.files import Weights
from mergeplan.checkpoints.weights import has_weights
from mergeplan.errors import InputError, MergeplanError, MissingInputError
from mergeplan.system.folders import what_is
from mergeplan.system.reading import open_plain

_PEFTS = "base_model."  # how peft's names of a wrapped model begin
_FACTOR = re.compile(r"\.lora_(A|B|down|up)\b|\.lora_embedding_")
_CONVERT = "load it by `from_pretrained` of an older transformers, and `save_pretrained` it"
# File or folder, what holds it, and a way out. The first that is there is named.
_KINDS = (
    (
        "*.incomplete",
        "an unfinished download",
        "fetch it again: `hf download` goes on where it stopped",
    ),
    ("*.aria2", "an unfinished download", "fetch it again: aria2 goes on where it stopped"),
    (
        "zero_to_fp32.py",
        "a DeepSpeed checkpoint in pieces",
        "`python zero_to_fp32.py . OUT` there gathers the weights into the folder OUT",
    ),
    (
        "*_model_states.pt",
        "a part of a DeepSpeed checkpoint in pieces",
        "DeepSpeed's `zero_to_fp32.py`, in the folder above, gathers the weights",
    ),
    (
        "global_step*",
        "a DeepSpeed checkpoint in pieces",
        "DeepSpeed's `zero_to_fp32.py` gathers the weights",
    ),
    (
        "*.distcp",
        "a checkpoint in torch's distributed format",
        "`accelerate merge-weights THERE OUT` gathers the weights",
    ),
    (
        "pytorch_model_fsdp_0",
        "an FSDP checkpoint in pieces",
        "`accelerate merge-weights THERE/pytorch_model_fsdp_0 OUT` gathers the weights",
    ),
    (
        "*.gguf",
        "weights in llama.cpp's format, GGUF",
        "merge the models that they were made from, and convert the result",
    ),
    (
        "consolidated*.safetensors",
        "a model in Mistral's own layout, without the one that transformers reads",
        "give the file itself as the model, or a folder that transformers wrote",
    ),
    (
        "consolidated*.pth",
        "a model in Meta's own layout",
        "transformers' `convert_llama_weights_to_hf.py` makes a checkpoint of it",
    ),
    ("tf_model*.h5", "TensorFlow weights alone", _CONVERT),
    ("model.ckpt*", "TensorFlow weights alone", _CONVERT),
    ("flax_model*.msgpack", "Flax weights alone", _CONVERT),
    ("*.onnx", "an ONNX model", "merge the model that it was made from"),
    ("*.nemo", "a NeMo archive", "NeMo's own scripts convert it for transformers"),
    (
        "latest_checkpointed_iteration.txt",
        "a Megatron checkpoint",
        "Megatron's own scripts convert it for transformers",
    ),
)
# Files that are taken for models, by their endings.
_FILES = {
    **dict.fromkeys((".yml", ".yaml"), "a YAML file"),
    **dict.fromkeys((".csv", ".tsv"), "a table"),
    **dict.fromkeys((".txt", ".md"), "a text file"),
    ".json": "a JSON file",
    ".jsonl": "a file of documents",
    ".zip": "an archive",
}
_WEIGHTS = ("*.safetensors", "*.pt", "*.pth", "*.bin")
# What trainers write beside weights, which is none.
_TRAINER = ("optimizer.pt", "trainer_state.json", "training_args.bin", "rng_state*.pth")


def refuse_pipeline(folder: Path) -> None:
    """Refuse a whole diffusers pipeline: several models, of which a merge takes one.

    Raises:
        InputError: It is one.
    """
    if (folder / "model_index.json").is_file():
        found = _models_below(folder)
        such = f", such as `{folder / found[0]}`" if found else ""
        raise InputError(
            f"`{folder}` is a whole diffusers pipeline",
            f"merge its components one by one: give the folder of one{such}",
        )


def no_model(folder: Path) -> MergeplanError:
    """The error about a folder without a model's weights."""
    if (folder / "snapshots").is_dir():
        return _cache(folder)
    below = _models_below(folder)
    training = [name for name in below if name.startswith("checkpoint-")]
    if training:
        return MissingInputError(
            f"`{folder}` holds no model itself, but training checkpoints: {_some(training)}",
            f"give one of them, such as `{folder / training[-1]}`",
        )
    for pattern, what, hint in _KINDS:
        found = sorted(folder.glob(pattern))
        if found:
            hint = hint.replace("THERE", str(folder))
            return InputError(f"`{folder}` holds {what}: `{found[0].name}`", hint)
    if below:
        return MissingInputError(
            f"`{folder}` holds no model itself, but folders that do: {_some(below)}",
            f"give one of them, such as `{folder / below[0]}`",
        )
    files = sorted(path.name for pattern in _WEIGHTS for path in folder.glob(pattern))
    trainers = {path.name for pattern in _TRAINER for path in folder.glob(pattern)}
    if adapters := [name for name in files if name.startswith("adapter_model.")]:
        return MissingInputError(
            f"`{folder}` holds `{adapters[0]}` without its `adapter_config.json`",
            "fetch that too, from the same place: it has the rank, alpha and base of the adapter",
        )
    if named := [name for name in files if name not in {*trainers, "optimizer.bin"}]:
        return MissingInputError(
            f"`{folder}` holds no file that a model is read from by default, but {_some(named)}",
            f"give the file itself as the model: `{folder / named[0]}`",
        )
    if trainers:
        return MissingInputError(
            f"`{folder}` is a training checkpoint without weights: it holds {_some(trainers)}",
            "save the model by its trainer's `save_model`, and give that folder",
        )
    if folder.parent.name == "snapshots":
        return MissingInputError(
            f"`{folder}` is a model of the hub without its weights: only other files are in the"
            " cache",
            f"fetch them: `hf download {_hub_id(folder.parent.parent)}`",
        )
    if (ours := what_is(folder)) is not None:
        what, hint = ours
        return MissingInputError(f"`{folder}` is no checkpoint, but {what}", hint)
    return MissingInputError(
        f"no safetensors checkpoint in `{folder}`: expected `model.safetensors` or"
        " `model.safetensors.index.json`",
        "give the folder of a checkpoint, or its file",
    )


def no_weights(name: str, path: Path, known: tuple[str, ...]) -> InputError:
    """The error about a file in a model's place that is none of weights.

    Args:
        name: As it was given.
        known: How files of weights end.
    """
    for pattern, what, hint in _KINDS:
        if path.match(pattern):
            return InputError(f"model `{name}` is {what}", hint.replace("THERE", str(path.parent)))
    ending = path.suffix.lower()
    what = _FILES.get(ending) or ("a text file" if _is_text(path) else "")
    if ending in (".yml", ".yaml"):
        hint = f"if it is a merge's config, run it first: `mergeplan merge {path} OUT_DIR`"
    else:
        hint = f"give a folder, or a file that ends in {', '.join(known)}"
    said = f"{what}, and no model" if what else "a file of an unknown kind"
    return InputError(f"model `{name}` is {said}", hint)


def _is_text(path: Path) -> bool:
    try:
        with open_plain(path) as file:
            start = file.read(1000)
        # A letter may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except (OSError, MergeplanError, UnicodeDecodeError):
        return False
    return bool(start) and b"\0" not in start


def _models_below(folder: Path) -> list[str]:
    """Names of the folders inside that hold a model, numbers in their order."""
    found = [
        path.name
        for path in folder.glob("*")
        if path.is_dir() and (has_weights(path) or (path / ADAPTER_CONFIG).is_file())
    ]
    return sorted(found, key=lambda name: (int(name[len(name.rstrip("0123456789")) :] or 0), name))


def _some(names: list[str] | set[str]) -> str:
    first = [f"`{name}`" for name in list(names)[:3]]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _cache(folder: Path) -> MergeplanError:
    """A model's folder in the hub's cache is not the folder of its files."""
    snapshots = sorted((folder / "snapshots").iterdir())
    or_folder = f", or the folder `{snapshots[-1]}`" if snapshots else ""
    return MissingInputError(
        f"`{folder}` is a model's place in the hub's cache, not the folder of its files",
        f"give the hub id `{_hub_id(folder)}`{or_folder}",
    )


def _hub_id(place: Path) -> str:
    """The name of a model, by its place in the hub's cache."""
    return place.name.removeprefix("models--").replace("--", "/")


def refuse_empty(folder: Path, found: Weights) -> None:
    """Refuse what DeepSpeed's ZeRO-3 leaves of weights that were saved without being gathered."""
    empty = [
        name
        for name, tensor in found.tensors.items()
        if tensor.shape == (0,)
        and tensor.dtype in FLOATS
        and (name.endswith((".weight", ".bias")) or ".lora_" in name)
    ]
    if empty:
        more = f", and so are {len(empty) - 1} more" if len(empty) > 1 else ""
        raise InputError(
            f"`{folder / found.tensors[empty[0]].file}`: tensor `{empty[0]}` is empty, of shape"
            f" [0]{more}: DeepSpeed ZeRO-3 saved it without gathering its parts",
            "`zero_to_fp32.py` in the training's folder gathers them; to train on, set"
            " `stage3_gather_16bit_weights_on_model_save`",
        )


def refuse_factors(folder: Path, found: Weights) -> None:
    """Refuse LoRA factors as a model: their products can be merged, they cannot.

    Those that stand beside the layer that they adapt, under names of the model's own and without a
    word of an adapter, are a part of its architecture, as in Phi-4-multimodal.
    """
    bases = {name.partition(".base_layer.")[0] for name in found.tensors if ".base_layer." in name}
    if (folder / ADAPTER_CONFIG).is_file() or not (folder / CONFIG_FILE).is_file():
        bases = set()
    for name, tensor in found.tensors.items():
        is_own = name.partition(".lora_")[0] in bases and not name.startswith(_PEFTS)
        if "lora_" in name and _FACTOR.search(name) and not is_own:
            raise InputError(
                f"`{folder / tensor.file}`: tensor `{name}` is a factor of a LoRA update, which"
                " cannot be merged by itself",
                "give an adapter by the folder that peft's `save_pretrained` wrote; merge one that"
                " is part of a model by peft's `merge_and_unload` first",
            )
