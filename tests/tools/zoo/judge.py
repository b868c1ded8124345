"""An output folder, read back by transformers and held against the oracle."""

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import load_tensors
from tests.tools.zoo.oracle import Oracle, load
from tests.tools.zoo.pools import tokenizer

RIGHT = "right"


@dataclass(frozen=True)
class Judge:
    """Whether an output is the merge of a pool.

    Attributes:
        expected: The tensors that its files should have.
    """

    model_class: Any
    pool: Path
    oracle: Oracle
    expected: dict[str, torch.Tensor]

    def verdict(self, merge: Callable[..., object], *, exact: bool) -> str:
        """What is wrong with what a program writes to a folder, or `RIGHT`.

        Args:
            merge: Takes the folder `out`.
            exact: Names and bits as in the base's files; else only as transformers loads them.
        """
        out = self.pool / "out"
        trouble = "refused"
        try:
            with _quiet():
                merge(out)
            trouble = "does not load"
            return "; ".join(self._faults(out, exact)) or RIGHT
        except Exception as error:
            return f"{trouble}: {said(error)}".replace(f"{self.pool}/", "")
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _faults(self, out: Path, exact: bool) -> list[str]:
        faults = self._in_files(load_tensors(out)) if exact else []
        loaded = load(self.model_class, out)
        for kind, keys in loaded.complaints.items():
            new = sorted(set(keys) - set(self.oracle.numbered.complaints.get(kind, ())))
            if new:
                faults.append(f"{len(new)} {kind} ({new[0]})")
        expected = self.oracle.model(self.expected)
        wrong = [n for n, tensor in expected.items() if _differs(loaded.tensors[n], tensor, exact)]
        if wrong:
            faults.append(f"{len(wrong)} of {len(expected)} tensors differ as loaded ({wrong[0]})")
        return [*faults, *self._beside(out, loaded.config)]

    def _in_files(self, found: dict[str, torch.Tensor]) -> list[str]:
        """Names, dtypes, shapes and values, before anyone loads them."""
        both = self.expected.keys() & found.keys()
        kinds = {
            "lost": self.expected.keys() - found.keys(),
            "unknown": found.keys() - self.expected.keys(),
            "different": {name for name in both if not _equal(found[name], self.expected[name])},
        }
        return [
            f"{len(names)} tensors {kind} ({min(names)})" for kind, names in kinds.items() if names
        ]

    def _beside(self, out: Path, config: dict[str, Any]) -> list[str]:
        from transformers import AutoTokenizer

        faults = []
        own = self.oracle.numbered.config
        changed = [key for key in own if config.get(key) != own[key]]
        if changed:
            faults.append(f"config.json differs in {', '.join(changed)}")
        if AutoTokenizer.from_pretrained(out).get_vocab() != tokenizer().get_vocab():
            faults.append("another vocabulary")
        return faults


def _equal(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.dtype == expected.dtype and torch.equal(found, expected)


def _differs(found: torch.Tensor, expected: torch.Tensor, exact: bool) -> bool:
    """Whether a loaded tensor is another; NaN stands for any value."""
    if found.shape != expected.shape:
        return True
    expected = torch.where(expected.isnan(), found, expected)
    # mergekit may round a last place otherwise.
    same = torch.equal if exact else partial(torch.allclose, rtol=1e-5, atol=1e-8)
    return not same(found, expected)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        contextlib.redirect_stdout(io.StringIO()) as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
