"""Planning by mergekit, in a process of its own.

mergekit, torch and transformers take half a gigabyte, which the merge itself then need not carry.
"""

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import BinaryIO

from mergeplan.config.config import MergeConfig, parse_config
from mergeplan.errors import InternalError, MergeplanError
from mergeplan.planning.mergekit.version import require_mergekit
from mergeplan.planning.options import PlanOptions
from mergeplan.planning.plan import MergePlan

_CHILD = """
import sys
sys.path[:] = {path!r}
from mergeplan.planning.mergekit.process import main
main()
"""
# Dtypes that our core computes in.
_OURS = {None, "float32", "bfloat16", "float16"}


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
    require_mergekit(f"this merge, {why}," if why else "this merge")
    options = options or PlanOptions()
    request = Request(config.text, options, seed, max_shard_bytes, allow_nonfinite)
    here = "mergekit" in sys.modules or not {config.dtype, config.out_dtype} <= _OURS
    return (None if here else plan_apart(request)) or request.plan()


@dataclass(frozen=True)
class Request:
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


def plan_apart(request: Request) -> MergePlan | None:
    """Plan in another process; `None` where the merge needs mergekit in this one, for a fallback.

    Raises:
        InputError: See `plan_by_mergekit`.
        InternalError: The process died.
    """
    command = [sys.executable, "-c", _CHILD.format(path=sys.path)]
    done = subprocess.run(command, input=pickle.dumps(request), capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise InternalError(f"the process that plans by mergekit died: {last or done.returncode}")
    answer = pickle.loads(done.stdout)
    if isinstance(answer, MergeplanError):
        raise answer
    plan: MergePlan | None = answer
    return plan


def main() -> None:
    """Plan what stdin asks for; the answer goes to stdout, and nothing else does."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        _answer(pickle.load(sys.stdin.buffer), out)


def _answer(request: Request, out: BinaryIO) -> None:
    answer: MergePlan | MergeplanError | None
    try:
        plan = request.plan()
        answer = None if plan.fallback else plan
    except MergeplanError as error:
        # Tracebacks and causes stay here.
        answer = type(error)(error.message, error.hint)
    pickle.dump(answer, out)
