"""Evaluate a model: prepare the texts, load, score; and all that the command offers besides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mergeplan.display.summary import Summarized
from mergeplan.display.text import finite
from mergeplan.errors import InputError
from mergeplan.evaluation.halves import UNGROUPED
from mergeplan.evaluation.harness import Tasks, check_tasks, paired, run_tasks, try_tasks
from mergeplan.evaluation.measure import Measure
from mergeplan.evaluation.options import BY_DOCUMENT, EvaluationOptions
from mergeplan.evaluation.scores import Scores, TaskScore, difference, rows_of, scores_table
from mergeplan.evaluation.sources import Data, files_of
from mergeplan.evaluation.task_items import TaskItems
from mergeplan.measurements.columns import direction
from mergeplan.system.files import expanded
from mergeplan.system.progress import Progress, Shown, shown_as_bar


@dataclass(frozen=True, repr=False)
class Evaluation(Summarized):
    """What was found about a model.

    Attributes:
        against: Scores of the other model, on the same tokens.
        against_tasks: What the tasks came to of the other model.
        task_hashes: Of each task's settings and items.
        data_hash: See `Texts.sha256`.
        left_out: Documents of which no token can be scored.
        warnings: On halves that are less independent than they look, where one was scored.
        metric: What a scorer measured; empty for losses in nats.
        higher: Whether more of it is better.
    """

    scores: Scores
    against: Scores | None
    tasks: tuple[TaskScore, ...]
    data_hash: str
    left_out: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    metric: str = ""
    higher: bool = False
    against_tasks: tuple[TaskScore, ...] = ()
    task_hashes: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Losses and tasks, and the paired difference from the other model."""
        text = self.table(self.scores, self.metric or "loss_nats", self.tasks)
        if self.against is None:
            return text
        return text + "\n\n" + self.difference()

    def records(self) -> list[dict[str, Any]]:
        """A row for each domain, both means and each task, with the difference from the other
        model."""
        data = self.data()
        value = "value" if self.metric else "loss_nats"
        rows = [
            {"domain": name, "metric": data["metric"], "value": row.pop(value), **row}
            for name, row in data["scores"].items()
        ]
        names = ("metric", "value", "se", "n_documents")
        tasks = finite([asdict(one) for one in self.beside(self.tasks)])
        rows += [{"domain": one["task"], **{n: one[n] for n in names}} for one in tasks]
        if self.against is None:
            return rows
        apart = [(row[value], row["se"]) for row in data["difference"].values()]
        differences = self.beside(paired(self.tasks, self.against_tasks))
        apart += finite([(one.value, one.se) for one in differences])
        return [
            {**row, "difference": difference, "difference_se": se}
            for row, (difference, se) in zip(rows, apart, strict=True)
        ]

    def difference(self) -> str:
        """The table of the differences from the other model, paired by document and by item."""
        assert self.against is not None
        apart = difference(self.scores, self.against)
        return self.table(apart, "difference", paired(self.tasks, self.against_tasks))

    @property
    def counted(self) -> str:
        """What a document's count is of."""
        return "item" if self.metric else "token"

    def table(self, scores: Scores, value: str, tasks: Sequence[TaskScore] = ()) -> str:
        """A row for each domain and both means.

        Args:
            value: What the scores are.
            tasks: In rows below.
        """
        return scores_table(scores, self.beside(tasks), value=value, counted=self.counted)

    def beside(self, tasks: Sequence[TaskScore]) -> list[TaskScore]:
        """Of tasks, what does not stand among the domains: without data or a scorer some do."""
        return [t for t in tasks if t.metric != self.metric or t.task not in self.scores.domains]

    def data(self) -> dict[str, Any]:
        """Ready for JSON: what is not finite becomes null."""
        against = self.against and difference(self.scores, self.against)
        apart = paired(self.tasks, self.against_tasks) if against else []
        macro = self.scores.macro()
        data = {
            "metric": self.metric or "loss_nats",
            "better": direction(self.higher),
            "value": macro.loss_nats,
            "se": macro.se,
            "scores": self._rows(self.scores),
            "difference": against and self._rows(against),
            "tasks": [asdict(task) for task in self.tasks],
            "task_differences": list(map(asdict, apart)),
            "data_hash": self.data_hash,
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }
        return dict(finite(data))

    def _rows(self, scores: Scores) -> dict[str, Any]:
        value = "value" if self.metric else "loss_nats"
        return {
            name: {
                value: row.loss_nats,
                "se": row.se,
                f"n_{self.counted}s": row.n_tokens,
                "n_documents": row.n_documents,
            }
            for name, row in rows_of(scores, self.counted).items()
        }


def evaluate(
    model: str | Path,
    data: Data,
    options: EvaluationOptions | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    progress: Shown = None,
) -> Scores:
    """Token cross-entropy of a model on held-out text, in nats per token.

    To score many models of one family, prepare `texts.Texts` once and call its `score`.

    Args:
        model: A local folder with weights, config.json and tokenizer.
        data: A `.jsonl` file, a folder of them, a pool, or several; or a file for each domain by
            name. Lines have `text`, `prompt` and `response`, or `messages`; for a scorer, what it
            takes.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for the checkpoint's own.
        device: `cpu`, `cuda`, or `auto` for CUDA where there is one.
        progress: Called with the tokens scored so far, and all of them; or true for a bar, false
            for none, `None` for one in a notebook.

    Returns:
        Sums by document; `macro()`, `token_weighted()` and `estimates()` give means.

    Raises:
        MissingInputError: The model or a file is not there.
        InputError: The model, a file or an option is at fault.

    Example:
        >>> import mergeplan
        >>> mergeplan.evaluate("merged", "eval").macro().loss_nats  # doctest: +SKIP
    """
    found = evaluate_fully(model, data, options, dtype=dtype, device=device, progress=progress)
    return found.scores


def evaluate_fully(
    model: str | Path,
    data: Data,
    options: EvaluationOptions | None = None,
    *,
    against: str | Path | None = None,
    tasks: tuple[str, ...] = (),
    dtype: str = "auto",
    device: str = "auto",
    progress: Shown = None,
) -> Evaluation:
    """Also score another model on the same tokens, and run downstream tasks.

    Args:
        data: As for `evaluate`; without any, and without a scorer, the tasks' items count.
        against: A model with the same tokenizer.
        tasks: See `harness.check_tasks`.

    Returns:
        Scores by document, of the other model too, and what the tasks came to.

    Raises:
        InputError: As `evaluate`, or the tokenizers differ, or a task is at fault.
    """
    models = [path for path in (model, against) if path is not None]
    first, *others = evaluate_each(
        models, data, options, tasks=tasks, dtype=dtype, device=device, progress=progress
    )
    if not others:
        return first
    return replace(first, against=others[0].scores, against_tasks=others[0].tasks)


def evaluate_each(
    models: Sequence[str | Path],
    data: Data,
    options: EvaluationOptions | None = None,
    *,
    tasks: tuple[str, ...] = (),
    dtype: str = "auto",
    device: str = "auto",
    progress: Shown = None,
    visit: Callable[[Path, Any], None] | None = None,
) -> list[Evaluation]:
    """Score several models on the same tokens, one in memory at a time.

    Args:
        data, tasks: As for `evaluate_fully`.
        visit: Called with each model's folder and the model, once it is scored.

    Returns:
        Each model's scores, in the order of the models.

    Raises:
        InputError: As `evaluate_fully`.
    """
    from mergeplan.evaluation.loading import load_for_measure, load_tokenizer

    options = options or EvaluationOptions()
    folders = [expanded(path) for path in models]
    found = check_tasks(tasks) if tasks else None
    measure = _measure(folders, files_of(data), options, found)
    ungrouped = [UNGROUPED] if options.half != "all" and measure.cut == BY_DOCUMENT else []
    # As a calibration's table has them.
    hashes = {name: sha256[:16] for name, sha256 in found.hashes.items()} if found else {}
    evaluations: list[Evaluation] = []
    for number, folder in enumerate(folders):
        loaded = load_for_measure(folder, options.scorer, dtype=dtype, device=device)
        measure.check(loaded)
        task_scores: tuple[TaskScore, ...] = ()
        if found is not None:
            tokenizer = load_tokenizer(folder)
            if not evaluations:
                try_tasks(found, loaded, tokenizer)
        if not isinstance(measure, TaskItems):
            with shown_as_bar(progress, options.unit) as told:
                scores = measure.score(loaded, told and _among(told, number, len(folders)))
        if found is not None:
            task_scores = tuple(run_tasks(found, loaded, tokenizer))
        if isinstance(measure, TaskItems):
            scores = measure.scores_of(task_scores)
        if visit is not None:
            visit(folder, loaded)
        del loaded  # two models need not fit
        evaluations.append(
            Evaluation(
                scores,
                None,
                task_scores,
                measure.sha256,
                measure.left_out,
                (*measure.faults, *ungrouped),
                measure.metric,
                measure.higher,
                task_hashes=hashes,
            )
        )
    return evaluations


def _among(told: Progress, number: int, count: int) -> Progress:
    """Progress of one of several models, as that of all of them."""
    return lambda done, total: told(number * total + done, count * total)


def _measure(
    folders: list[Path],
    files: dict[str, Path],
    options: EvaluationOptions,
    tasks: Tasks | None,
) -> Measure:
    """What the models are scored by, on the same documents; without any, by the tasks' items."""
    from mergeplan.evaluation.hashes import tokenizer_content
    from mergeplan.evaluation.loading import context_of, load_model_configs, load_tokenizer
    from mergeplan.evaluation.own_documents import OwnDocuments
    from mergeplan.evaluation.texts import Texts

    if options.scorer is not None:
        return OwnDocuments.prepare(files, options, given=True)
    if tasks is not None and not files:
        if options.half != "all":
            raise InputError("`half`: items of tasks have no halves", "give data, or leave it out")
        return TaskItems.of(tasks)
    contexts = list(map(context_of, load_model_configs(folders)))
    tokenizer, *others = [load_tokenizer(folder) for folder in folders]
    content = tokenizer_content(tokenizer)
    differing = {
        folder: found
        for folder, other in zip(folders[1:], others, strict=True)
        if (found := tokenizer_content(other)) != content
    }
    strangers = [folder for folder, (tokens, _) in differing.items() if tokens != content[0]]
    if strangers:
        names = ", ".join(f"`{folder}`" for folder in strangers)
        raise InputError(
            f"`{folders[0]}` and {names} have different tokenizers",
            "losses per token of different tokens cannot be compared; `mergeplan compare --prompt`"
            " without `--data` shows what each makes of the same prompts",
        )
    context = min((length for length in contexts if length is not None), default=None)
    texts = Texts.prepare(files, tokenizer, options, context=context, given=True)
    if differing and texts.conversations:
        raise InputError(
            f"`{folders[0]}` and `{next(iter(differing))}` have different chat templates",
            "they would be scored on different tokens of `messages`; texts, and prompts with"
            " responses, need no template",
        )
    return texts
