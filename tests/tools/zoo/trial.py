"""One class, tried: pools, merges by both programs, and a verdict on each output."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.merges import config_text, run_mergekit, run_mergeplan
from tests.tools.zoo.classes import Species
from tests.tools.zoo.judge import Judge, said
from tests.tools.zoo.oracle import DENSITY, WEIGHTS, Oracle, oracle_of
from tests.tools.zoo.pools import MODELS, build, make_pool

# Method, whether the tokenizer's source is named, whether the output has shards. With an untied
# head, and by mergekit, only every second one is tried: each of the three still comes both ways.
MERGES = {
    "linear": ("linear", False, False),
    "ties": ("ties", False, True),
    "linear, tokenizer": ("linear", True, True),
    "ties, tokenizer": ("ties", True, False),
}
UNTIED = ("ties", "linear, tokenizer")
THEIRS = ("linear", "ties, tokenizer")


@dataclass
class Row:
    """What became of a class.

    Attributes:
        left_out: Why there is no model of it: transformers' message.
        ours, theirs: A verdict on each merge, by its name in `MERGES` and its kind of head.
        complaints: What transformers says of the base that it saved itself.
    """

    key: str
    tasks: list[str]
    left_out: str = ""
    n_tensors: int = 0
    n_elements: int = 0
    mixture: bool = False
    heads: list[str] = field(default_factory=list)
    ours: dict[str, str] = field(default_factory=dict)
    theirs: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def try_species(
    species: Species,
    merges: Sequence[str] = tuple(MERGES),
    *,
    both_heads: bool = True,
    with_mergekit: bool = False,
) -> Row:
    """Merge a class's models in every way, and say what came out.

    Args:
        merges: Names in `MERGES`.
        both_heads: With the head tied to the embedding and not, where the class can; else as its
            config has it.
        with_mergekit: Ask mergekit too, of one kind of head.
    """
    begun = time.monotonic()
    row = Row(species.key, list(species.tasks))
    for head, tied in (_heads(species) if both_heads else {"own": None}).items():
        tried = [name for name in merges if head != "untied" or name in UNTIED]
        with tempfile.TemporaryDirectory() as folder:
            try:
                make_pool(Path(folder), build(species, tied))
                oracle = oracle_of(species.model_class, Path(folder))
            except Exception as error:
                row.left_out = said(error).replace(f"{folder}/", "")
                continue
            row.heads.append(head)
            try_pool = _Pool(species, Path(folder), oracle, head, row)
            try_pool.merge(tried, THEIRS if with_mergekit and len(row.heads) == 1 else ())
    if row.heads:
        row.left_out = ""
    row.seconds = round(time.monotonic() - begun, 1)
    return row


def _heads(species: Species) -> dict[str, bool | None]:
    """The kinds of head to try: both, where the class can tie it to the embedding."""
    try:
        can_tie = bool(species.model_class._tied_weights_keys)
    except Exception:  # What fails here fails in building, too, and is told there.
        can_tie = False
    return {"tied": True, "untied": False} if can_tie else {"own": None}


@dataclass(frozen=True)
class _Pool:
    """The models with one kind of head, and the row that takes the verdicts."""

    species: Species
    folder: Path
    oracle: Oracle
    head: str
    row: Row

    def merge(self, merges: Sequence[str], by_mergekit: Sequence[str]) -> None:
        row, oracle = self.row, self.oracle
        complaints = oracle.numbered.complaints
        row.complaints = [f"{kind}: {keys[:3]}" for kind, keys in complaints.items()]
        row.n_tensors = len(oracle.models[0])
        row.n_elements = sum(tensor.numel() for tensor in oracle.models[0].values())
        row.mixture = row.mixture or any("expert" in name for name in oracle.numbered.tensors)
        for name in merges:
            method, source, sharded = MERGES[name]
            text = _config(self.folder, method, source)
            expected = oracle.files(method)
            size = sum(t.nbytes for t in expected.values()) // 3 + 1 if sharded else 1 << 40
            judge = Judge(self.species.model_class, self.folder, oracle, expected)
            ours = partial(run_mergeplan, text, max_shard_bytes=size)
            row.ours[f"{name}, {self.head}"] = judge.verdict(ours, exact=True)
            if name in by_mergekit:
                theirs = partial(run_mergekit, text, out_shard_size=size)
                row.theirs[name] = judge.verdict(theirs, exact=False)


def _config(pool: Path, method: str, source: bool) -> str:
    top: dict[str, Any] = {"tokenizer_source": "base"} if source else {}
    base, *experts = (pool / name for name in MODELS)
    if method == "linear":
        per_model = [{"weight": weight} for weight in WEIGHTS]
        return config_text(method, [base, *experts], base=base, per_model=per_model, **top)
    parameters = {"weight": 1.0, "density": DENSITY}
    return config_text(method, experts, base=base, parameters=parameters, **top)
