"""How to run a merge, or several, beside what their configs say."""

from dataclasses import dataclass
from pathlib import Path

from mergeplan.checkpoints.adapters.adapt import LoraOptions
from mergeplan.checkpoints.dtypes import FLOATS, STORED_NAMES
from mergeplan.checkpoints.opening import OpenOptions
from mergeplan.config.config import AnyConfig
from mergeplan.errors import InputError
from mergeplan.merging.licence import licence_word
from mergeplan.planning.options import PlanOptions
from mergeplan.system.ranges import check_number, check_seed

# mergekit's default, which it counts in bytes too.
DEFAULT_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class MergeOptions:
    """How to run a merge, beside its config: into a folder, into memory, or several at once.

    Merges into memory write no folder, and pass over what is about one: `max_shard_bytes`,
    `overwrite`, `resume`, `discard`, `copy_tokenizer`, `write_model_card`, `license`.

    Attributes:
        seed: Seed of random masks, 0 to 2**64 - 1; `None` for the config's `random_seed`, else 0.
        threads: Worker threads; `None` for one a usable core.
        max_shard_bytes: Bytes of tensors in one output file.
        allow_nonfinite: Merge NaN and infinity instead of refusing them.
        memory_limit: Bytes of anonymous memory that the whole process may take, or a merge into
            memory beside what it fills; `None` for 256 MiB at two threads and 32 MiB for each
            further one, or what the merge needs at the least.
        allow_fallback_memory: Let mergekit's executor, where tensors fall to it, take more than
            that.
        device: Where to merge: `cuda`, `cuda:0`, `auto` or `cpu`, as `torch.device` has
            them; `None` for the Rust core.
        vram_limit: Bytes of each device's memory that merging may take; `None` for most of what is
            free.
        overwrite: Replace an output folder that holds a model and nothing else, at the very end.
        resume: Go on from what an interrupted run left, if there is anything.
        discard: Throw that away.
        copy_tokenizer, write_model_card: Whether those files are written.
        license: The licence that the model card gives the merge, by the hub's word for it, such as
            `apache-2.0`; `None` for the one that the cards of all models give.
        lora_merge_dtype: Torch name of the dtype to which base + adapter is rounded; `None` for the
            base's own.
        lora_exact: Keep base + adapter in float32 instead.
        transformers_cache: Folder of the hub's cache; `None` for the default.
        allow_crimes: Mix architectures.
        trust_remote_code: Run code that comes with a model, to read its config and tokenizer.
        unsafe_truncate_embeddings: Cut vocabularies to the smallest one.
        allow_vocabulary_mismatch: Merge rows of tokens as they stand, where one token has two ids.
        allow_left_out: Patterns of tensors' names, with `*` and `?`, that the output may lack
            where some model does.
        packed_experts: Write the matrices of a mixture's experts packed, as mergekit does.
    """

    seed: int | None = None
    threads: int | None = None
    max_shard_bytes: int = DEFAULT_SHARD_BYTES
    allow_nonfinite: bool = False
    memory_limit: int | None = None
    allow_fallback_memory: bool = False
    device: str | None = None
    vram_limit: int | None = None
    overwrite: bool = False
    resume: bool = False
    discard: bool = False
    copy_tokenizer: bool = True
    write_model_card: bool = True
    license: str | None = None
    lora_merge_dtype: str | None = None
    lora_exact: bool = False
    transformers_cache: str | None = None
    allow_crimes: bool = False
    trust_remote_code: bool = False
    unsafe_truncate_embeddings: bool = False
    allow_vocabulary_mismatch: bool = False
    allow_left_out: tuple[str, ...] = ()
    packed_experts: bool = False

    def __post_init__(self) -> None:
        """Raises `InputError` for a value out of its range."""
        if self.seed is not None:
            check_seed(self.seed)
        check_number(self.max_shard_bytes, "max_shard_bytes", 1, 2**63 - 1, whole=True)
        if self.threads is not None:
            check_number(self.threads, "threads", 1, 1024, whole=True)
        for name in ("memory_limit", "vram_limit"):
            if (value := getattr(self, name)) is not None:
                check_number(value, name, 1, 2**63 - 1, whole=True)
        if self.license is not None:
            licence_word(self.license)
        if self.lora_merge_dtype is not None and self.lora_merge_dtype not in STORED_NAMES:
            known = ", ".join(FLOATS.values())
            raise InputError(
                f"`lora_merge_dtype`: expected one of {known}, found `{self.lora_merge_dtype}`"
            )

    def planning(self) -> PlanOptions:
        """What of them is for the planner."""
        return PlanOptions(
            opening=OpenOptions(
                lora=LoraOptions(self.lora_merge_dtype, self.lora_exact),
                cache=self.transformers_cache,
                download=True,
            ),
            allow_crimes=self.allow_crimes,
            trust_remote_code=self.trust_remote_code,
            unsafe_truncate_embeddings=self.unsafe_truncate_embeddings,
            allow_vocabulary_mismatch=self.allow_vocabulary_mismatch,
            allow_left_out=self.allow_left_out,
            packed_experts=self.packed_experts,
        )


@dataclass(frozen=True)
class MergeRequest:
    """One of several merges: its config, its output folder, and its seed.

    Attributes:
        config: Validated, or the path of a mergekit YAML.
        seed: `None` for the one of the options.
    """

    config: AnyConfig
    out: str | Path
    seed: int | None = None
