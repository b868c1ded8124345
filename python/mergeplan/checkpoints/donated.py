"""What a model's folder gives to the output of a merge beside the weights, and what stays there."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mergeplan.checkpoints.beside import entries_beside
from mergeplan.checkpoints.checkpoint import CONFIG_FILE, Checkpoint
from mergeplan.checkpoints.code import ModelCode, code_of, is_own
from mergeplan.checkpoints.tokenizer import SETTINGS_FILES, TOKENIZER_FILES

# Which of the files that are copied may name code.
WITH_CODE = (
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "modules.json",
)
_SMALL = (".json", ".txt")
# Modules of sentence-transformers that have weights; a download may have left those where they are.
_WITH_WEIGHTS = (
    *("Transformer", "MLMTransformer", "CLIPModel", "Router", "Asym"),
    *("Dense", "LayerNorm", "CNN", "LSTM", "WeightedLayerPooling", "WordEmbeddings"),
    *("StaticEmbedding", "SparseStaticEmbedding", "SparseAutoEncoder"),
)
# What no loader of the output misses: words and pictures, the weights in other formats, what a
# training or a merge left.
_NOT_NEEDED = (
    *("readme*", "licen[sc]e*", "notice*", "use_policy*", "*.md", "*.pdf", "*.y*ml"),
    *("*.png", "*.jp*g", "*.gif", "*.svg", "*.webp", "*.mp4", "*.csv", "*.tsv"),
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.onnx*"),
    *("*.gguf", "*.ggml", "*.tflite", "*.npz", "*.index.json", "*.lock", "*.log"),
    *("trainer_state.json", "all_results.json", "*_results.json", "training_args*", "events.*"),
    *("mergeplan_manifest.json", "adapter_config.json", "params.json", "requirements.txt"),
    *("original", "onnx", "openvino", "coreml", "gguf", "runs", "checkpoint-*", "global_step*"),
    *("__pycache__", "lost+found", "logs", "wandb", "eval*", "figures", "images", "assets"),
)


@dataclass(frozen=True)
class Donated:
    """Names in a model's folder, with `/` where a file lies deeper.

    Attributes:
        tokenizer: Files of the tokenizer and the chat templates.
        settings: Files for generation, for other inputs than text, and of sentence-transformers.
        code: What config.json and those files name.
        left: Files and folders that may be needed, and are not known.
        left_weights: Folders of sentence-transformers' modules whose weights stay behind, whether
            they are there or not.
    """

    tokenizer: tuple[str, ...]
    settings: tuple[str, ...]
    code: ModelCode
    left: tuple[str, ...]
    left_weights: tuple[str, ...]

    def names(self, *, tokenizer: bool, settings: bool) -> list[str]:
        """What to copy, whether the tokenizer and the settings are wanted or not."""
        return [
            *(self.tokenizer if tokenizer else ()),
            *(self.settings if settings else ()),
            *self.code.files,
        ]


def donated_by(donor: Checkpoint, *, settings: bool = True) -> Donated:
    """Look into the folder of a model; names of files, and the small ones that name others.

    Args:
        settings: Whether tokenizer and settings are copied: else only config.json may name code.
    """
    folder = donor.path
    tokenizer = _matching(folder, TOKENIZER_FILES)
    modules = _sentence_modules(folder)
    inside = [f"{name}/{path.name}" for name in modules for path in _files(folder / name)]
    small = [name for name in inside if name.endswith(_SMALL) and is_own(folder, name)]
    copied = _matching(folder, SETTINGS_FILES) + small
    code = code_of(folder, (CONFIG_FILE, *(WITH_CODE if settings else ())))
    kept = {CONFIG_FILE, *tokenizer, *copied, *code.files}
    stored = {name.partition("/")[0] for name in inside if name not in small}
    weights = stored | {path for path, kind in modules.items() if kind in _WITH_WEIGHTS}
    # A file alone may lie among files of others.
    left = _left(folder, kept | weights) if donor.config else []
    return Donated(tuple(tokenizer), tuple(copied), code, tuple(left), tuple(sorted(weights)))


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    found = dict.fromkeys(path for pattern in patterns for path in sorted(folder.glob(pattern)))
    names = [path.relative_to(folder).as_posix() for path in found if path.is_file()]
    # A folder that is linked to is not this model's; a file in it may be anybody's.
    return [name for name in names if "/" not in name or is_own(folder, name)]


def _sentence_modules(folder: Path) -> dict[str, str]:
    """Folders of sentence-transformers' modules, and their kinds; the model itself has none."""
    found = {
        str(one.get("path") or ""): str(one.get("type")).rpartition(".")[2]
        for one in entries_beside(folder / "modules.json")
    }
    return {
        path: kind for path, kind in found.items() if path not in ("", ".", "..") and _is_name(path)
    }


def _is_name(path: str) -> bool:
    return PurePosixPath(path).name == path and "\\" not in path and (":" not in path)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _left(folder: Path, kept: set[str]) -> list[str]:
    """What is neither copied nor known to be of no use; folders that give something are known."""
    found = []
    known = {name.partition("/")[0] for name in kept}
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith((".", "_"))
        idle = any(PurePosixPath(path.name.lower()).match(one) for one in _NOT_NEEDED)
        if path.name not in known and not hidden and not idle:
            found.append(f"{path.name}/" if path.is_dir() else path.name)
    return found
