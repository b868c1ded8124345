"""Documents that a scorer of one's own is given, and what it makes of a model on them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.evaluation.documents import (
    OBJECTS,
    Document,
    TextFile,
    read_documents,
    read_objects,
)
from mergeplan.evaluation.halves import cut_of, faults_across
from mergeplan.evaluation.options import Cut, EvaluationOptions
from mergeplan.evaluation.repeated import group_keys, named_groups, repeats_told
from mergeplan.evaluation.scorer import Scorer
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.evaluation.texts import Domain
from mergeplan.measurements.rows import MACRO, domain_name
from mergeplan.system.reading import TEXTS, read_bytes

# Documents of each domain that a scorer is tried on before anything is merged.
_TRIED = 4


@dataclass
class OwnDocuments:
    """What a scorer is given, and its scores; a `measure.Measure`."""

    domains: dict[str, Domain]
    sha256: str
    cut: Cut
    faults: tuple[str, ...]
    _scorer: Scorer = field(repr=False)
    _objects: dict[str, list[Any]] = field(repr=False)
    _paths: dict[str, Path] = field(repr=False)
    _counts: dict[str, NDArray[np.int64]] = field(default_factory=dict, repr=False)
    left_out: tuple[str, ...] = ()

    @classmethod
    def prepare(
        cls, data: Mapping[str, Path], options: EvaluationOptions, *, given: bool = False
    ) -> "OwnDocuments":
        """Read and choose the documents.

        Args:
            data: A file for each domain; none where the scorer makes its documents itself.
            options: With a scorer.
            given: Whether the user names the files, so that they may be pipes.

        Raises:
            InputError: A file, an option or the scorer is at fault.
        """
        scorer = options.scorer
        assert scorer is not None
        options.check()
        files = read_files(data, scorer, given=given)
        domains, objects = {}, {}
        repeats: list[str] = []
        for name, file in files.items():
            pairs = zip(file.documents, file.objects, strict=True)
            chosen = [(d, o) for d, o in pairs if options.half in ("all", d.half)]
            if not chosen:
                raise InputError(
                    f"`{file.path}`: none of its {len(file.documents)} documents falls into the"
                    f" {options.half} half",
                    "give the domain more documents",
                )
            lines = [document.line for document, _ in chosen]
            own = [document.group for document, _ in chosen]
            keys = group_keys(lines, own, [_identity(scorer, *pair) for pair in chosen])
            repeats += repeats_told(name, own, keys, lines)
            domains[name] = Domain(
                np.array(lines, np.int64),
                np.ones(len(chosen), np.int64),
                named_groups(lines, keys),
            )
            objects[name] = [one for _, one in chosen]
        texts = {name: file for name, file in files.items() if file.kind != OBJECTS}
        faults = [*repeats, *(faults_across(texts) if options.half != "all" else ())]
        return cls(
            domains,
            own_sha256(files, options),
            cut_of(files),
            tuple(faults),
            scorer,
            objects,
            {name: file.path for name, file in files.items()},
        )

    @property
    def metric(self) -> str:
        """What the scorer says that it measures; empty for losses in nats."""
        return self._scorer.metric

    @property
    def higher(self) -> bool:
        """Whether more of it is better."""
        return self._scorer.higher

    @property
    def n_tokens(self) -> int:
        """Documents: what a scorer counts is known when it has scored them."""
        return sum(len(objects) for objects in self._objects.values())

    def check(self, model: Any) -> None:
        """Try the scorer on a base and the first documents.

        Raises:
            InputError: It fails, gives NaN or no count, or is not a function of the document.
        """
        import torch

        with torch.no_grad():
            for name, objects in self._objects.items():
                self._scorer.check(model, objects[:_TRIED], self._namer(name))

    def check_whole(self, model: Any) -> None:
        """Score a base whole, so that no merge is made for documents that have no score.

        Raises:
            InputError: As for `score`, or a sum is not finite.
        """
        for domain, found in self.score(model).domains.items():
            name = self._namer(domain)
            for place, value in enumerate(found.nll.tolist()):
                self._scorer.check_sum(value, name(place))

    def score(self, model: Any, progress: Callable[[int, int], None] | None = None) -> Scores:
        """Score a model, on the device that it is on.

        Raises:
            InputError: The scorer fails, or counts other things than it did of another model.
        """
        import torch

        found: dict[str, DomainScores] = {}
        done = 0
        trained, _ = model.training, model.eval()
        try:
            with torch.no_grad():
                for name, objects in self._objects.items():
                    scored = self._scorer.score(model, objects, self._namer(name))
                    sums, counts = zip(*scored, strict=True)
                    found[name] = self._domain(name, np.array(sums), np.array(counts, np.int64))
                    done += len(objects)
                    if progress is not None:
                        progress(done, self.n_tokens)
        finally:
            model.train(trained)
        return Scores(found)

    def _namer(self, domain: str) -> Callable[[int], str]:
        """What messages call a document, by its place among the chosen ones."""
        path, lines = self._paths[domain], self.domains[domain].lines
        file = f"`{path}`, " if path != self._scorer.path else ""
        return lambda place: f"{file}document {lines[place]}"

    def _domain(
        self, name: str, sums: NDArray[np.float64], counts: NDArray[np.int64]
    ) -> DomainScores:
        domain = self.domains[name]
        known = self._counts.setdefault(name, counts)
        if (differ := np.flatnonzero(known != counts)).size:
            place = int(differ[0])
            raise InputError(
                f"scorer `{self._scorer.path}`, domain `{name}`, document"
                f" {domain.lines[place]}: a count of {counts[place]}, and of {known[place]} for"
                " another model",
                "models are compared document by document: a count must not depend on the model",
            )
        return DomainScores(domain.lines, counts, sums, domain.groups)


def read_files(
    data: Mapping[str, Path], scorer: Scorer | None, *, given: bool = False
) -> dict[str, TextFile]:
    """Each domain's documents: texts, or what a scorer is given.

    Args:
        data: None where the scorer makes its documents itself.

    Raises:
        MissingInputError: A file is not there.
        InputError: A file or the scorer is at fault, or documents of no file have no hash.
    """
    if scorer is None:
        return {name: read_documents(path, given=given) for name, path in data.items()}
    if not data:
        name = "made" if domain_name(scorer.path.stem) == MACRO else scorer.path.stem
        if not scorer.has_documents:
            raise InputError(
                f"there is no `data`, and scorer `{scorer.path}` has no `load_documents`",
                "name files of documents, or let `load_documents(None)` make them",
            )
        return {name: _own_file(None, scorer, b"")}
    if scorer.has_documents:
        return {n: _own_file(p, scorer, read_bytes(p, TEXTS)) for n, p in data.items()}
    return {name: read_objects(path, given=given) for name, path in data.items()}


def own_sha256(files: Mapping[str, TextFile], options: EvaluationOptions) -> str:
    """Of the files' bytes, the scorer, and the half: equal hashes mean equal measures."""
    assert options.scorer is not None
    half = [options.half, cut_of(files)] if options.half != "all" else []
    content = [
        sorted((name, file.sha256, len(file.documents)) for name, file in files.items()),
        options.scorer.sha256,
        half,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _identity(scorer: Scorer, document: Document, given: Any) -> int | str:
    """Equal of documents that are the same; what a scorer made itself may be anything."""
    if scorer.has_documents:
        return document.line
    content = {key: value for key, value in given.items() if key not in ("group", "id")}
    return json.dumps(content, sort_keys=True)


def _own_file(path: Path | None, scorer: Scorer, raw: bytes) -> TextFile:
    """What a scorer makes of a file: halves go by the documents' groups, or by their numbers."""
    objects = scorer.load_documents(path)
    groups = [one.get("group") if isinstance(one, Mapping) else None for one in objects]
    documents = tuple(
        Document(number, f"{number}", group=None if group is None else str(group))
        for number, group in enumerate(groups, 1)
    )
    # Of no file, by what they hold: the scorer may have them from anywhere.
    sha256 = hashlib.sha256(raw if path else _content(objects, scorer)).hexdigest()
    return TextFile(path or scorer.path, OBJECTS, documents, sha256, tuple(objects))


def _content(objects: list[Any], scorer: Scorer) -> bytes:
    try:
        return json.dumps(objects, default=_held).encode()
    except (TypeError, ValueError, RecursionError, RuntimeError) as error:
        raise InputError(
            f"scorer `{scorer.path}`: `load_documents(None)`: no hash of its documents: {error}",
            "make them of texts, numbers, lists, dicts with plain keys, bytes, arrays and data"
            " classes: a run goes on only with the documents that it began with",
        ) from error


def _held(value: Any) -> Any:
    """What an object holds that JSON cannot hold."""
    if hasattr(value, "detach"):  # a tensor, of dtypes that numpy does not know too
        import torch

        flat = value.detach().cpu().reshape(-1).view(torch.uint8).numpy()
        return [str(value.dtype), [*value.shape], hashlib.sha256(flat.tobytes()).hexdigest()]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {one.name: getattr(value, one.name) for one in fields(value)}]
    if getattr(getattr(value, "dtype", None), "hasobject", False):
        return value.tolist()  # its bytes would be addresses
    if not isinstance(value, bytes) and not hasattr(value, "tobytes"):
        raise TypeError(f"one holds a `{type(value).__name__}`")
    raw = value if isinstance(value, bytes) else value.tobytes()
    kind = [str(getattr(value, name, "")) for name in ("dtype", "shape", "mode", "size")]
    return [type(value).__name__, *kind, hashlib.sha256(raw).hexdigest()]
