"""What `inspect` found, and how it reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergeplan.display.summary import Summarized
from mergeplan.display.text import counted, format_bytes, format_count, listed, printable
from mergeplan.inspection.compatibility import Refusal
from mergeplan.inspection.facts import AdapterFacts, CheckpointFacts, DtypeShare, FileFacts
from mergeplan.inspection.forecast import FallbackForecast, MemoryForecast, MergeForecast

# Entries of a list before the rest is only counted.
_SHOWN = 4


@dataclass(frozen=True)
class OutputFacts:
    """What a merge will write; `donor` gives it config.json and tokenizer."""

    tensors: int
    n_bytes: int
    dtypes: tuple[DtypeShare, ...]
    files: tuple[FileFacts, ...]
    donor: str


@dataclass(frozen=True)
class TensorOptions:
    """The value that every option takes for one output tensor.

    Attributes:
        method: `passthrough` where a tensor that not every model has is copied.
        shared: Options of the whole merge.
        each: Options of each model that goes in, by its name.
    """

    tensor: str
    method: str
    shared: dict[str, Any]
    each: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class MergeInspection:
    """A config and its models.

    Attributes:
        method: `None` where the config does not say.
        problems: Why it cannot run; empty where it can.
        output, forecast: `None` where it cannot even be planned.
        tensors: The tensors that are merged, with their options; empty where there is no plan.
    """

    config: Path
    method: str | None
    base: str | None
    models: tuple[CheckpointFacts, ...]
    problems: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    output: OutputFacts | None
    forecast: MergeForecast | None
    tensors: Sequence[TensorOptions]


@dataclass(frozen=True, repr=False)
class Inspection(Summarized):
    """What was found.

    Attributes:
        checkpoints: The checkpoints that were named.
        problems: Why those cannot be merged with each other.
        merges: The configs that were named.
    """

    checkpoints: tuple[CheckpointFacts, ...]
    problems: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    merges: tuple[MergeInspection, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing stands in the way of any merge."""
        return not self.problems and not any(merge.problems for merge in self.merges)

    def summary(self, *, tensors: bool = False) -> str:
        """Everything that was found.

        Args:
            tensors: Leave nothing out of any list.
        """
        return "\n".join(map(printable, self._lines(tensors)))

    def records(self) -> list[dict[str, Any]]:
        """A row for each checkpoint and for each config with what it would write."""
        checkpoints = [
            {
                "path": str(one.path),
                "tensors": len(one.tensors),
                "n_bytes": one.n_bytes,
                "n_params": one.n_params,
                "architecture": one.architecture,
                "problems": len(self.problems),
            }
            for one in self.checkpoints
        ]
        merges = [
            {
                "path": str(one.config),
                "tensors": one.output.tensors if one.output else None,
                "n_bytes": one.output.n_bytes if one.output else None,
                "method": one.method,
                "problems": len(one.problems),
            }
            for one in self.merges
        ]
        return checkpoints + merges

    def _lines(self, tensors: bool) -> Iterator[str]:
        for checkpoint in self.checkpoints:
            yield from _checkpoint(checkpoint, tensors)
        several = len(self.checkpoints) > 1
        if several and not self.problems:
            yield f"these {len(self.checkpoints)} checkpoints can be merged with each other"
        yield from _problems(self.problems, tensors)
        for merge in self.merges:
            yield from _merge(merge, tensors)


def _checkpoint(facts: CheckpointFacts, tensors: bool) -> Iterator[str]:
    yield _summary(facts)
    yield f"  dtypes     {_dtypes(facts.dtypes)}"
    yield f"  shapes     {_some([f'{s.tensors} × {list(s.shape)}' for s in facts.shapes], tensors)}"
    model = [facts.architecture] if facts.architecture else []
    model += [f"vocabulary {facts.vocabulary}"] if facts.vocabulary is not None else []
    yield f"  model      {', '.join([*model, f'head {facts.head}'])}"
    yield f"  files      {_files(facts.files, tensors)}"
    if facts.adapter is not None:
        yield f"  adapter    {_adapter(facts.adapter)}"
    if tensors and facts.tensors:
        width = max(len(tensor.name) for tensor in facts.tensors)
        for tensor in facts.tensors:
            shape = str(list(tensor.shape))
            yield f"  {tensor.name:{width}}  {tensor.dtype:7}  {shape:16}  {tensor.file}"


def _adapter(facts: AdapterFacts) -> str:
    """Its rank, alpha and targets."""
    ranks = ", ".join(map(str, facts.ranks))
    alpha = "none" if facts.alpha is None else f"{facts.alpha:g}"
    targets = listed(facts.targets)
    scaled = " (rsLoRA: over the root of the rank)" if facts.rslora else ""
    return f"rank {ranks}, alpha {alpha}{scaled}, on {counted(facts.modules, 'modules')}: {targets}"


def _summary(facts: CheckpointFacts) -> str:
    return (
        f"{facts.name}: {len(facts.tensors)} tensors, {format_count(facts.n_params)} parameters,"
        f" {format_bytes(facts.n_bytes)}"
    )


def _merge(merge: MergeInspection, tensors: bool) -> Iterator[str]:
    on = f" on `{merge.base}`" if merge.base else ""
    count = len(merge.models)
    method = merge.method or "no method that is known"
    closed = sum(problem.kind == "open" for problem in merge.problems)
    beside = f" and {closed} that cannot be opened" if closed else ""
    yield f"{merge.config}: {method}{on}, {counted(count, 'models')}{beside}"
    for model in merge.models:
        yield f"  {_summary(model)}, {_dtypes(model.dtypes)}"
        if model.adapter is not None:
            yield f"    adapter {_adapter(model.adapter)}"
    if merge.output:
        output = merge.output
        yield (
            f"  output     {output.tensors} tensors, {format_bytes(output.n_bytes)},"
            f" {_dtypes(output.dtypes)}; config.json and tokenizer of `{output.donor}`"
        )
        yield f"  files      {_files(output.files, tensors)}"
    if merge.forecast:
        yield from _forecast(merge.forecast)
    if tensors:
        for tensor in merge.tensors:
            yield from _options(tensor)
    if not merge.problems:
        yield "  this merge can run"
    yield from _problems(merge.problems, tensors)


def _options(tensor: TensorOptions) -> Iterator[str]:
    """The options of a tensor: those of the merge, then each model's."""
    yield f"  {tensor.tensor}  {tensor.method}{_values(tensor.shared)}"
    for model, options in tensor.each.items():
        yield f"    {model} {_values(options)}"


def _values(options: Mapping[str, object]) -> str:
    shown = [
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {str(value).lower()}"
        for key, value in options.items()
        if value is not None
    ]
    return "".join(f"  {entry}" for entry in shown)


def _forecast(found: MergeForecast) -> Iterator[str]:
    about = "" if found.read_is_exact else "about "
    yield (
        f"  reads      {format_bytes(found.input_bytes)} of input,"
        f" {about}{format_bytes(found.read_bytes)} with every pass over it"
    )
    disk = found.disk
    room = ""
    if disk.free_bytes is not None:
        room = f"; {format_bytes(disk.free_bytes)} are free at `{disk.place}`"
    yield (
        f"  writes     {format_bytes(found.written_bytes)}, and needs"
        f" {format_bytes(disk.needed_bytes)} of disk{room}"
    )
    yield f"  memory     {_memory(found.memory, found.threads)}"
    if found.fallback:
        yield f"  fallback   {_fallback(found.fallback)}"
    time = found.time
    yield (
        f"  time       about {_seconds(time.from_cache)} from the page cache,"
        f" {_seconds(time.from_disk)} from a disk of {format_bytes(time.disk_bytes_per_second)}/s"
        " (an estimate)"
    )
    yield f"             {time.basis}"


def _memory(memory: MemoryForecast, threads: int) -> str:
    limit = format_bytes(memory.limit_bytes)
    if memory.limit_given:
        verdict = f"the limit of {limit} {'is enough' if memory.holds else 'is too low'}"
    elif memory.holds:
        verdict = f"the default limit of {limit} is enough"
    else:
        verdict = f"more than the default limit of {limit}, which is raised"
    return (
        f"at most {format_bytes(memory.peak_bytes)} of anonymous memory with"
        f" {counted(threads, 'threads')};"
        f" {verdict}; the lowest limit is {memory.minimum_bytes >> 20}MiB"
    )


def _fallback(found: FallbackForecast) -> str:
    enough = "" if found.holds else ": more than there may be, see `--allow-fallback-memory`"
    return (
        f"{found.tensors} tensors, {format_bytes(found.n_bytes)}, are computed by mergekit's own"
        f" executor, with up to {format_bytes(found.memory_bytes)} of memory more{enough}"
    )


def _seconds(seconds: float) -> str:
    """Two digits, for an estimate deserves no more.

    >>> _seconds(0.1234), _seconds(75.0), _seconds(9000.0)
    ('0.12 s', '75 s', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.2g} min"
    hours = seconds / 3600
    return f"{hours:.2g} h" if hours < 99.5 else f"{hours:,.0f} h"


def _problems(problems: Sequence[Refusal], everything: bool) -> Iterator[str]:
    """Problems of one kind and model together, each group with its hint."""
    groups: dict[tuple[str, str | None], list[Refusal]] = {}
    for problem in problems:
        groups.setdefault((problem.kind, problem.model), []).append(problem)
    for group in groups.values():
        shown = group if everything else group[:_SHOWN]
        excerpt = ""
        for problem in shown:
            more = f" (and {problem.tensors - 1} tensors more)" if problem.tensors > 1 else ""
            yield f"problem: {problem.message}{more}"
            if problem.excerpt != excerpt:  # a model's line once for all its tensors
                excerpt = problem.excerpt
                yield from excerpt.splitlines()
        if len(group) > len(shown):
            where = f" in `{group[0].model}`" if group[0].model else ""
            yield f"problem: {len(group) - len(shown)} more like this{where}; `--tensors` lists all"
        for hint in dict.fromkeys(problem.hint for problem in shown if problem.hint):
            yield f"  hint: {hint}"


def _dtypes(shares: Sequence[DtypeShare]) -> str:
    if len(shares) == 1:
        return f"all {shares[0].dtype}"
    return ", ".join(
        f"{share.dtype} {share.share:.1%} ({share.tensors} tensors)" for share in shares
    )


def _files(files: Sequence[FileFacts], everything: bool) -> str:
    shown = _some([f"{file.name} {format_bytes(file.n_bytes)}" for file in files], everything)
    return shown if len(files) < 2 else f"{len(files)}: {shown}"


def _some(entries: list[str], everything: bool) -> str:
    shown = entries if everything else entries[:_SHOWN]
    more = [f"and {len(entries) - len(shown)} more"] if len(entries) > len(shown) else []
    return ", ".join([*shown, *more]) or "none"
