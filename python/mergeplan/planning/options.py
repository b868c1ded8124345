"""What planning a merge may do, beside what its config says."""

from dataclasses import dataclass, field

from mergeplan.checkpoints.opening import OpenOptions


@dataclass(frozen=True)
class PlanOptions:
    """How models are opened, and what mergekit may do where it plans; names are its flags'.

    Attributes:
        opening: Where models are looked for, and how adapters are added.
        allow_crimes: Mix architectures.
        trust_remote_code: Run code that comes with a model, to read its config and tokenizer.
        unsafe_truncate_embeddings: Cut vocabularies to the smallest; without a tokenizer option.
        allow_vocabulary_mismatch: Merge rows of tokens as they stand, where one token has two ids.
        allow_left_out: Patterns of tensors' names, with `*` and `?`, that the output may lack
            where some model does.
        packed_experts: Write the matrices of a mixture's experts packed, as mergekit does.
        explain: Keep the value that every option takes for every tensor.
    """

    opening: OpenOptions = field(default_factory=OpenOptions)
    allow_crimes: bool = False
    trust_remote_code: bool = False
    unsafe_truncate_embeddings: bool = False
    allow_vocabulary_mismatch: bool = False
    allow_left_out: tuple[str, ...] = ()
    packed_experts: bool = False
    explain: bool = False
