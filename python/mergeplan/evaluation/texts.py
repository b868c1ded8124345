"""Held-out texts, encoded once for every model of a family."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mergeplan.errors import InputError
from mergeplan.evaluation.document_choice import choose
from mergeplan.evaluation.documents import read_documents
from mergeplan.evaluation.encoding import Sequence
from mergeplan.evaluation.halves import cut_of, faults_across
from mergeplan.evaluation.hashes import texts_sha256
from mergeplan.evaluation.options import Cut, EvaluationOptions
from mergeplan.evaluation.parts import parts_of
from mergeplan.evaluation.repeated import group_keys, named_groups, repeats_told
from mergeplan.evaluation.scores import DomainScores, Scores
from mergeplan.evaluation.windows import windows

if TYPE_CHECKING:
    import torch

    from mergeplan.evaluation.scoring import Batch, Window


@dataclass(frozen=True)
class Domain:
    """The chosen documents of a domain; all arrays are (documents,).

    Attributes:
        groups: As `DomainScores` has them.
        parts: See `parts.parts_of`.
    """

    lines: NDArray[np.int64]
    n_tokens: NDArray[np.int64]
    groups: tuple[str | None, ...] = ()
    parts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass
class Texts:
    """What is scored, known before any forward pass.

    Attributes:
        sha256: Of the files' bytes, the tokenizer's content and the options that decide what is
            scored: equal hashes mean losses that can be compared.
        cut: How the halves are cut; see `halves.cut_of`.
        left_out: Documents of which no token can be scored.
        faults: Documents that are repeated, and what is wrong with halves, where one of them is
            scored; see `halves.faults_across`.
        conversations: Whether a chat template writes some of the texts.
    """

    domains: dict[str, Domain]
    sha256: str
    cut: Cut
    left_out: tuple[str, ...]
    faults: tuple[str, ...]
    _windows: list["Window"] = field(repr=False)
    _batch_tokens: int | None = field(repr=False)
    conversations: bool = False
    _batches: dict[tuple["torch.device", int | None], list["Batch"]] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        self._largest_id = max(int(window.ids.max()) for window in self._windows)
        self._longest = max(len(window.ids) for window in self._windows)

    @classmethod
    def prepare(
        cls,
        data: dict[str, Path],
        tokenizer: Any,
        options: EvaluationOptions | None = None,
        *,
        context: int | None = None,
        given: bool = False,
    ) -> "Texts":
        """Read, choose, tokenise and cut the texts.

        Args:
            data: JSON-lines file of each domain.
            tokenizer: Of transformers.
            context: Most tokens that the models take; see `loading.context_of`.
            given: Whether the user names the files, so that they may be pipes.

        Raises:
            InputError: A file or an option is at fault, or a domain has nothing to score.
        """
        from mergeplan.evaluation.scoring import Window

        options = options or EvaluationOptions()
        if not data:
            raise InputError("there are no domains to evaluate on")
        options.check()
        max_length, stride = options.window(context)
        domains: dict[str, Domain] = {}
        pieces: list[Window] = []
        left_out: list[str] = []
        repeats: list[str] = []
        files = {name: read_documents(path, given=given) for name, path in data.items()}
        n_documents = 0
        for name, file in files.items():
            chosen, unscored = choose(file, tokenizer, options)
            left_out += unscored
            for number, document in enumerate(chosen, n_documents):
                for sequence in document.sequences:
                    for ids, scored in _cut(sequence, max_length, stride):
                        pieces.append(Window(number, ids, scored))
            n_documents += len(chosen)
            lines = [document.line for document in chosen]
            own = [document.group for document in chosen]
            contents = [document.order for document in chosen]
            keys = group_keys(lines, own, contents)
            repeats += repeats_told(name, own, keys, lines)
            domains[name] = Domain(
                np.array(lines, np.int64),
                np.array([document.n_tokens for document in chosen], np.int64),
                named_groups(lines, keys),
                parts_of(keys, contents),
            )
        cut = cut_of(files)
        faults = [*repeats, *(faults_across(files) if options.half != "all" else ())]
        return cls(
            domains,
            texts_sha256(files, tokenizer, options.deciding(context, cut)),
            cut,
            tuple(left_out),
            tuple(faults),
            pieces,
            options.batch_tokens,
            any(file.kind == "messages" for file in files.values()),
        )

    @property
    def n_tokens(self) -> int:
        """Tokens that each model is scored on."""
        return sum(int(domain.n_tokens.sum()) for domain in self.domains.values())

    def score(self, model: Any, progress: Callable[[int, int], None] | None = None) -> Scores:
        """Run a model over the texts, on the device that it is on.

        Args:
            model: A causal language model of transformers.
            progress: Called with the tokens scored so far, and all of them.

        Raises:
            InputError: Its vocabulary lacks tokens of the texts, or its context is too short.
        """
        return self._score(model, self._batches_of(model, None), progress)

    def score_parts(self, model: Any, parts: range) -> Scores:
        """Run a model over the documents of some parts; see `parts.parts_of`.

        Each part has batches of its own, so that a document's loss does not depend on which other
        parts are scored with it.

        Raises:
            InputError: As `score`.
        """
        batches = [batch for part in parts for batch in self._batches_of(model, part)]
        every = self._score(model, batches, None)
        kept = {name: np.isin(d.parts, list(parts)) for name, d in self.domains.items()}
        return Scores({name: each.of(kept[name]) for name, each in every.domains.items()})

    def _score(
        self, model: Any, batches: list["Batch"], progress: Callable[[int, int], None] | None
    ) -> Scores:
        from mergeplan.evaluation.scoring import score_batches

        self.check(model)
        counts = [len(domain.lines) for domain in self.domains.values()]
        # A part of few documents may be empty.
        nll = np.zeros(sum(counts))
        if batches:
            nll = score_batches(model, batches, sum(counts), progress)
        return self.scores_of(nll)

    def scores_of(self, nll: NDArray[np.float64]) -> Scores:
        """Scores from each document's loss, (documents,), numbered over all domains."""
        counts = [len(domain.lines) for domain in self.domains.values()]
        found = np.split(nll, np.cumsum(counts)[:-1])
        return Scores(
            {
                name: DomainScores(domain.lines, domain.n_tokens, part, domain.groups)
                for (name, domain), part in zip(self.domains.items(), found, strict=True)
            }
        )

    def _batches_of(self, model: Any, part: int | None) -> list["Batch"]:
        """Batches of a part, or of all documents together."""
        from mergeplan.evaluation.scoring import make_batches

        if (key := (model.device, part)) not in self._batches:
            parts = np.concatenate([domain.parts for domain in self.domains.values()])
            some = [w for w in self._windows if part is None or parts[w.document] == part]
            self._batches[key] = make_batches(some, model.device, self._batch_tokens)
        return self._batches[key]

    def batches_by_domain(
        self,
        device: "torch.device",
        *,
        batch_tokens: int | None = None,
        chosen: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> dict[str, list["Batch"]]:
        """Batches of one domain's documents each; documents are numbered over all domains.

        Args:
            batch_tokens: Most tokens of a batch; `None` for what the options say.
            chosen: The documents of each domain that are wanted; `None` for all.
        """
        from mergeplan.evaluation.scoring import make_batches

        ends = np.cumsum([len(domain.lines) for domain in self.domains.values()])
        wanted = np.concatenate(
            [
                np.ones(len(one.lines), np.bool_) if chosen is None else chosen[name]
                for name, one in self.domains.items()
            ]
        )
        some: dict[str, list[Window]] = {name: [] for name in self.domains}
        names = list(self.domains)
        for window in self._windows:
            if wanted[window.document]:
                some[names[int(np.searchsorted(ends, window.document, "right"))]].append(window)
        tokens = batch_tokens or self._batch_tokens
        return {name: make_batches(found, device, tokens) for name, found in some.items()}

    def only(self, chosen: Mapping[str, NDArray[np.bool_]]) -> "Texts":
        """Some of the documents of each domain, as texts of their own.

        Args:
            chosen: Of each domain; one or more.
        """
        from mergeplan.evaluation.scoring import Window

        kept = np.concatenate([chosen[name] for name in self.domains])
        numbers = np.cumsum(kept) - 1
        domains = {
            name: Domain(
                one.lines[chosen[name]],
                one.n_tokens[chosen[name]],
                tuple(compress(one.groups, chosen[name])),
                one.parts[chosen[name]],
            )
            for name, one in self.domains.items()
        }
        pieces = [
            Window(int(numbers[window.document]), window.ids, window.scored)
            for window in self._windows
            if kept[window.document]
        ]
        return replace(self, domains=domains, _windows=pieces, _batches={})

    def longest_batch(self, device: "torch.device") -> "Batch":
        """A batch of the longest window alone."""
        from mergeplan.evaluation.scoring import make_batches

        longest = max(self._windows, key=lambda window: len(window.ids))
        return make_batches([longest], device, None)[0]

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return self._longest

    @property
    def metric(self) -> str:
        """Nothing else than losses in nats."""
        return ""

    @property
    def higher(self) -> bool:
        """Of losses less is better."""
        return False

    def check(self, model: Any) -> None:
        """Refuse a model that the texts were not encoded for.

        Raises:
            InputError: Its vocabulary lacks tokens of the texts, or its context is too short.
        """
        from mergeplan.evaluation.loading import context_of

        known = len(model.get_input_embeddings().weight)
        if self._largest_id >= known:
            raise InputError(
                f"the tokenizer gives token {self._largest_id}, the model's vocabulary has {known}",
                "use the tokenizer that belongs to the model",
            )
        context = context_of(model.config)
        if context is not None and self._longest > context:
            raise InputError(
                f"the texts were cut into windows of up to {self._longest} tokens, the model takes"
                f" {context}",
                f"prepare them with `max_length` {context}",
            )


def tokens_of(domains: Iterable[Domain], parts: range) -> int:
    """Tokens that each model is scored on in some parts; see `parts.parts_of`."""
    some = list(parts)
    return sum(int(d.n_tokens[np.isin(d.parts, some)].sum()) for d in domains)


def _cut(
    sequence: Sequence, max_length: int, stride: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Windows of a sequence that score something, each without what follows its last such token."""
    for start, first, end in windows(len(sequence.ids), max_length, stride):
        scored = np.flatnonzero(sequence.scored[first:end]) + first - start
        if len(scored):
            yield sequence.ids[start : start + scored[-1] + 1], scored
