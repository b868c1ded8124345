"""What mergekit plans for us, in a process of its own.

mergekit, torch and transformers take half a gigabyte, which the merge itself then need not carry.
"""

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from mergeplan.config.config import MergeConfig, parse_config
from mergeplan.display.text import cut
from mergeplan.errors import InputError, InternalError, MergeplanError, SurroundingsError
from mergeplan.planning.mergekit.version import require_mergekit
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.plan import MergePlan
from mergeplan.planning.rows import Stack
from mergeplan.planning.tokens import Tokens

_CHILD = """
import sys
sys.path[:] = {path!r}
from mergeplan.planning.mergekit.process import main
main()
"""
# Dtypes that our core computes in.
_OURS = {None, "float32", "bfloat16", "float16"}

Answer = TypeVar("Answer", covariant=True)


class Request(Protocol[Answer]):
    """Something to ask of mergekit, and how to answer it where mergekit is loaded."""

    def answer(self) -> Answer:
        """The answer, worked out here."""


def plan_by_mergekit(
    config: MergeConfig,
    options: PlanOptions | None = None,
    *,
    why: str | None = None,
    seed: int,
    max_shard_bytes: int,
    allow_nonfinite: bool = False,
) -> MergePlan:
    """Plan a merge by mergekit, for our core.

    Where mergekit is not loaded yet, a process of its own loads it, so that this one stays small;
    but for dtypes that mergekit must compute in.

    Args:
        why: Why mergekit plans it: `because of …`.

    Raises:
        MissingInputError: mergekit is not installed.
        InputError: It is of another version, or the config or its models do not fit.
    """
    _require(why)
    options = options or PlanOptions()
    request = PlanRequest(config.text, options, seed, max_shard_bytes, allow_nonfinite)
    here = "mergekit" in sys.modules or not {config.dtype, config.out_dtype} <= _OURS
    return (None if here else ask_apart(request)) or request.plan()


def tokens_by_mergekit(
    config: MergeConfig,
    folders: Sequence[Path],
    stacks: Sequence[Stack],
    options: PlanOptions,
    *,
    why: str,
) -> Tokens:
    """The tokenizer that a config asks for, by mergekit.

    Args:
        folders: Those of `config.models`.
        stacks: Whose rows are asked for.
        why: Why mergekit is needed: `because of …`.

    Raises:
        MissingInputError: mergekit is not installed.
        InputError: It is of another version, or tokenizers and config do not fit.
    """
    _require(why)
    request = TokensRequest(config.text, tuple(folders), tuple(stacks), options.trust_remote_code)
    return request.answer() if "mergekit" in sys.modules else ask_apart(request)


def _require(why: str | None) -> None:
    require_mergekit(f"this merge, {why}," if why else "this merge")


@dataclass(frozen=True)
class PlanRequest:
    """What is to be planned.

    Attributes:
        text: The config.
    """

    text: str
    options: PlanOptions
    seed: int
    max_shard_bytes: int
    allow_nonfinite: bool

    def plan(self) -> MergePlan:
        """Plan it here.

        Raises:
            InputError: See `plan_by_mergekit`.
        """
        from mergeplan.planning.mergekit.planner import plan

        return plan(
            parse_config(self.text),
            self.options,
            seed=self.seed,
            max_shard_bytes=self.max_shard_bytes,
            allow_nonfinite=self.allow_nonfinite,
        )

    def answer(self) -> MergePlan | None:
        """The plan; `None` where the merge needs mergekit in its own process, for a fallback."""
        plan = self.plan()
        return None if plan.fallback else plan


@dataclass(frozen=True)
class TokensRequest:
    """Which tokenizer is to be made, and whose rows are asked for.

    Attributes:
        text: The config.
    """

    text: str
    folders: tuple[Path, ...]
    stacks: tuple[Stack, ...]
    trust_remote_code: bool

    def answer(self) -> Tokens:
        """Make it here.

        Raises:
            InputError: See `tokens_by_mergekit`.
        """
        from mergeplan.planning.mergekit.tokens import make_tokens

        trust = self.trust_remote_code
        return make_tokens(self.text, self.folders, self.stacks, trust_remote_code=trust)


def ask_apart(request: Request[Answer]) -> Answer:
    """Have a request answered in another process.

    Raises:
        InputError: See `plan_by_mergekit` and `tokens_by_mergekit`.
        InternalError: The process died.
    """
    command = [sys.executable, "-c", _CHILD.format(path=sys.path)]
    done = subprocess.run(command, input=pickle.dumps(request), capture_output=True, check=False)
    if done.returncode < 0:
        raise SurroundingsError(
            f"the process that asks mergekit was ended by signal {-done.returncode}",
            "the system may have had too little memory for it",
        )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise InternalError(f"the process that asks mergekit died: {last or done.returncode}")
    answer: Answer | MergeplanError = pickle.loads(done.stdout)
    if isinstance(answer, MergeplanError):
        raise answer
    return answer


def main() -> None:
    """Answer what stdin asks for; the answer goes to stdout, and nothing else does."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        reply(pickle.load(sys.stdin.buffer), out)


def reply(request: Request[object], out: BinaryIO) -> None:
    """Write the answer to a request, or the error that it ends in."""
    answer: object
    try:
        answer = request.answer()
    except MergeplanError as error:
        answer = error  # pickle leaves its traceback and cause here
    except Exception as error:
        if _is_ours(error):
            raise
        answer = InputError(
            f"mergekit or transformers cannot read what this merge needs: {cut(_line(error), 300)}",
            "look at the tokenizers, configs and code of its models: one of them may be damaged",
        )
    pickle.dump(answer, out)


def _is_ours(error: Exception) -> bool:
    """Whether it was raised by this package's own code, and not by another's."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("mergeplan.")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
