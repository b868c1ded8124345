"""A measure of one's own: a Python file that the user names, with `score(model, documents)`.

```python
METRIC, BETTER = "accuracy", "higher"      # left out: `score` gives losses in nats

def load_model(path, dtype, device): ...   # left out: a causal language model of transformers
def load_documents(path): ...              # left out: JSON lines
def score(model, documents):               # of each document its sum and its count
    return [(is_right(model, document), 1) for document in documents]
```

Its code runs because its name stands on the command line; none that a pool or a model names does.
What it measures is known by the hash of its file: another content is another measure.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from mergeplan.display.text import cut
from mergeplan.errors import InputError, nearest
from mergeplan.measurements.rows import LOSS_NAMES
from mergeplan.system import signals
from mergeplan.system.descriptors import stdout_to_stderr
from mergeplan.system.files import expanded
from mergeplan.system.ranges import LARGEST, within
from mergeplan.system.reading import CODE, read_text
from mergeplan.system.users_code import failed, run_source

_DIRECTIONS = ("lower", "higher")
# Of a metric: it stands in headers and keys of tables, and in options such as `acc:code=2`.
_NAME = re.compile(r"[^\s,\"'`:=]([^,\"'`:=]*[^\s,\"'`:=])?")
_PAIR = "a sum and a count, such as `(loss, n_tokens)` or `(1.0, 1)`"
# By which a document's sum may move with those beside it: padding rounds, in bfloat16 too.
_ROUNDING = 1e-2


def _numbered(place: int) -> str:
    return f"document {place + 1}"


@dataclass(frozen=True)
class Scorer:
    """A scorer's file, as it was read: what runs is what was hashed.

    Attributes:
        path: For messages.
    """

    path: Path
    source: str = field(repr=False)

    def __reduce__(self) -> tuple[type["Scorer"], tuple[Path, str]]:
        # Workers on other machines are sent the text, and not its functions.
        return Scorer, (self.path, self.source)

    @property
    def sha256(self) -> str:
        """Of the file's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def metric(self) -> str:
        """What it measures; empty for losses in nats."""
        return str(self._names.get("METRIC", ""))

    @property
    def higher(self) -> bool:
        """Whether more of it is better."""
        return bool(self._names.get("BETTER") == "higher")

    @property
    def has_documents(self) -> bool:
        """Whether it reads, or makes, its documents itself."""
        return "load_documents" in self._names

    def load_model(self, folder: Path, dtype: str, device: str) -> Any:
        """The scorer's own model; `None` where it has no function for that.

        Raises:
            InputError: It fails, or gives no module of torch.
        """
        import torch

        if "load_model" not in self._names:
            return None
        model = self._call("load_model", folder, dtype, device)
        if not isinstance(model, torch.nn.Module):
            raise self._fault(
                f"`load_model`: expected a module of torch, found {_named(model)}",
                "merges go into its parameters, which have the names of the checkpoint's tensors",
            )
        return model.eval()

    def load_documents(self, path: Path | None) -> list[Any]:
        """The scorer's own documents, of a file, or of none where it makes them.

        Raises:
            InputError: It fails, or gives none.
        """
        found = self._call("load_documents", path)
        if not isinstance(found, Sequence) or isinstance(found, str | bytes):
            raise self._fault(f"`load_documents`: expected a list, found {_named(found)}")
        if not found:
            raise self._fault(f"`load_documents({path})` gives no documents")
        return list(found)

    def score(
        self, model: Any, documents: Sequence[Any], name: Callable[[int], str] = _numbered
    ) -> list[tuple[float, int]]:
        """Each document's sum and count; a sum is NaN where the model gives none.

        Args:
            name: Of a document, for messages.

        Raises:
            InputError: It fails, or gives something else.
        """
        found = self._call("score", model, list(documents))
        n_found = _length(found)
        if n_found != len(documents):
            raise self._fault(
                f"`score`: expected {_PAIR}, for each of {len(documents)} documents, found"
                f" {_named(found) if n_found is None else f'{n_found} of them'}"
            )
        return [self._pair(one, name(place)) for place, one in enumerate(found)]

    def check(
        self, model: Any, documents: Sequence[Any], name: Callable[[int], str] = _numbered
    ) -> None:
        """Score a few documents on a base, and again in reverse: a document's score is its own.

        Args:
            name: Of a document, for messages.

        Raises:
            InputError: It fails, gives NaN, no count or losses that are none, or something else at
                the second time.
        """
        once = self.score(model, documents, name)
        for place, (value, _) in enumerate(once):
            self.check_sum(value, name(place))
        if not self.metric and sum(value for value, _ in once) <= 0:
            raise self._fault(
                f"`score`: expected losses in nats, above 0, found {once[0][0]:.6g} for {name(0)}",
                "name another measure by `METRIC`, and by `BETTER` which way it is better",
            )
        last = len(documents) - 1
        again = self.score(model, documents[::-1], lambda place: name(last - place))[::-1]
        for place, (one, other) in enumerate(zip(once, again, strict=True)):
            if one[1] != other[1] or not math.isclose(
                one[0], other[0], rel_tol=_ROUNDING, abs_tol=1e-6
            ):
                raise self._fault(
                    f"`score`, {name(place)}: {one[0]:.6g} of {one[1]}, and {other[0]:.6g} of"
                    f" {other[1]} where the same documents come in reverse",
                    "it must depend on model and document alone: seed what is random by the"
                    " document",
                )

    def check_sum(self, value: float, name: str) -> None:
        """Refuse a document's sum that is none.

        Raises:
            InputError: It is NaN.
        """
        if math.isnan(value):
            raise self._fault(
                f"`score`, {name}: expected a finite sum, found {value} or one beyond {LARGEST:g}"
            )

    def _pair(self, pair: Any, name: str) -> tuple[float, int]:
        try:
            value, count = pair
            value, count = _plain(value), _plain(count)
            if isinstance(pair, str | bytes) or isinstance(count, bool):
                raise TypeError
            value, count = _float(value), _float(count)
        # What is iterated and turned into numbers here is the scorer's own, and fails as it likes.
        except Exception:
            raise self._fault(f"`score`, {name}: expected {_PAIR}, found {_named(pair)}") from None
        if not count.is_integer() or not 1 <= count <= LARGEST:
            raise self._fault(
                f"`score`, {name}: expected a whole count from 1 to {LARGEST:g}, found {count:g}",
                "leave out, in `load_documents`, what has nothing to score" if count < 1 else None,
            )
        # Beyond the range of files a number is no score either: a run has to be read again.
        return math.nan if None in within((value,)) else value, int(count)

    @cached_property
    def _names(self) -> Mapping[str, Any]:
        """What the file defines; it runs when they are first asked for."""
        module = ModuleType(f"mergeplan_scorer_{self.sha256[:16]}")
        run_source("scorer", self.path, self.source, module)
        names = vars(module)
        self._check_functions(names)
        self._check_direction(names.get("METRIC"), names.get("BETTER"))
        return names

    def _check_functions(self, names: Mapping[str, Any]) -> None:
        if "score" not in names:
            functions = [name for name, value in names.items() if callable(value)]
            hint = nearest("score", functions) or "it takes a model and a list of documents"
            raise self._fault("function `score` is missing", hint)
        for name in ("score", "load_model", "load_documents"):
            if not callable(names.get(name, print)):
                raise self._fault(f"`{name}`: expected a function, found {_named(names[name])}")

    def _check_direction(self, metric: object, better: object) -> None:
        if metric is None and better is not None:
            raise self._fault("`BETTER` without `METRIC`", "leave it out: a loss is better lower")
        if metric is None:
            return
        if not isinstance(metric, str) or not metric.strip():
            raise self._fault(f"`METRIC`: expected a name, found {_named(metric)}")
        if not _NAME.fullmatch(metric) or not metric.isprintable():
            raise self._fault(
                "`METRIC`: expected a name without commas, quotes, `:`, `=`, control characters"
                f" and blanks at its ends, found {_named(metric)}",
                "it stands in tables and in options",
            )
        if metric.lower() in LOSS_NAMES:
            raise self._fault(
                f"`METRIC`: expected another measure than a loss in nats, found `{metric}`",
                "leave out `METRIC` and `BETTER` for losses in nats; name another loss by its kind",
            )
        if not isinstance(better, str) or better not in _DIRECTIONS:
            raise self._fault(
                f"`METRIC` without a direction: expected `BETTER` of `lower` or `higher`, found"
                f" {_named(better)}"
            )

    @stdout_to_stderr()
    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return self._names[name](*arguments)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(failed("scorer", self.path, error)) from error
        finally:
            # SIGTERM is a `SystemExit` too, of which a scorer makes what it likes.
            signals.raise_again()

    def _fault(self, what: str, hint: str | None = None) -> InputError:
        return InputError(f"scorer `{self.path}`: {what}", hint)


def load_scorer(path: str | Path) -> Scorer:
    """Read a scorer's file and run it once, so that it has what a scorer needs.

    Args:
        path: A Python file with `score(model, documents)`, which gives for each document a summed
            loss or score and its count. `METRIC` and `BETTER` name another measure than a loss in
            nats; `load_model(path, dtype, device)` and `load_documents(path)` are for models and
            data that are not those of causal language models.

    Returns:
        What `EvaluationOptions` takes as `scorer`.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no Python, fails, or lacks something; the message names it.

    Example:
        >>> import mergeplan, pathlib
        >>> file = pathlib.Path("ones.py")
        >>> _ = file.write_text("def score(model, documents): return [(1.0, 1)] * len(documents)")
        >>> mergeplan.load_scorer(file).higher
        False
    """
    path = expanded(path)
    scorer = Scorer(path, read_text(path, CODE, given=True))
    _ = scorer.metric  # runs it
    return scorer


def _length(found: Any) -> int | None:
    """Of a list or an array; `None` of what has none, as an array without dimensions."""
    try:
        return len(found)
    except TypeError:
        return None


def _plain(value: Any) -> Any:
    """What an array or a tensor of one number holds."""
    return value.item() if hasattr(value, "item") else value


def _float(value: Any) -> float:
    """A number of Python as a float.

    Raises:
        TypeError: It is none: a complex number or a text.
    """
    if not isinstance(value, Real | Decimal):
        raise TypeError
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _named(value: object) -> str:
    """What was found instead, short."""
    try:
        return "nothing" if value is None else f"`{cut(repr(value), 60)}`"
    except Exception:  # of its own class, or a whole number of thousands of digits
        return f"something of type `{type(value).__name__}`"
