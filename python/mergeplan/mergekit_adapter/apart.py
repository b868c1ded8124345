"""Planning in a process of its own: mergekit, torch and transformers take half a gigabyte, which
the merge itself then need not carry."""

import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import BinaryIO

from mergeplan.config import parse_config
from mergeplan.errors import InternalError, MergeplanError
from mergeplan.plan import MergePlan
from mergeplan.plan_options import PlanOptions

_CHILD = """
import sys
sys.path[:] = {path!r}
from mergeplan.mergekit_adapter.apart import main
main()
"""


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
        from mergeplan.mergekit_adapter.planning import plan

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
