"""Downstream tasks through lm-evaluation-harness, on a model that is loaded already.

Tasks are loaded once, with their data, and run one after the other: of a task's samples no more is
kept than each item's score.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mergeplan.errors import InputError, MissingInputError, nearest
from mergeplan.evaluation.scores import DISCORDANT, TaskScore, ratio_estimate, right_or_wrong
from mergeplan.evaluation.task_faults import (
    is_file,
    load_fault,
    refuse_faults,
    refuse_missing,
    refuse_twice,
)
from mergeplan.evaluation.task_sources import code_fault, reason_of
from mergeplan.measurements.rows import LOSS_NAMES
from mergeplan.system import signals
from mergeplan.system.descriptors import stdout_to_stderr
from mergeplan.system.ranges import within

_INSTALL = "pip install 'mergeplan[harness]'"
# Of what the harness resamples, where a metric is no mean of its items: its default, 100,000, takes
# minutes for each model.
_RESAMPLED = 1000
# Items of each task that are tried on a base before anything is merged.
_TRIED = 2
# Where data lie is not what they are: that, the documents say.
_PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")


@dataclass(frozen=True)
class Tasks:
    """Tasks that are loaded, with their data.

    Attributes:
        loaded: The harness's own tasks and groups, by the name or file that was asked for.
        hashes: Of each task's settings and items.
        counts: Of each task's items.
        better: Whether higher is better, by each metric of each task, in their order.
    """

    loaded: Mapping[str, Mapping[str, Any]] = field(repr=False)
    hashes: Mapping[str, str]
    counts: Mapping[str, int]
    better: Mapping[str, Mapping[str, bool]]

    @property
    def identity(self) -> dict[str, Any]:
        """What a score depends on beside the model, as `run.json` has it."""
        from importlib.metadata import version

        tasks = {f"task `{n}`": [self.hashes[n], self.counts[n]] for n in self.hashes}
        return {"lm-evaluation-harness": version("lm_eval"), **tasks}


@stdout_to_stderr()
def check_tasks(tasks: tuple[str, ...]) -> Tasks:
    """Load the tasks and their data, before any model is.

    Args:
        tasks: Names that the harness knows, or YAML files of tasks.

    Raises:
        MissingInputError: The harness is not installed, or a file is not there.
        InputError: It knows no such task, the task or its data cannot be had, two tasks have one
            name, or a file says something that the harness would drop.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingInputError(
            f"tasks need lm-evaluation-harness: {error}", f"install it: `{_INSTALL}`"
        ) from error
    files = [task for task in tasks if is_file(task)]
    for file in files:
        if not Path(file).is_file():
            raise MissingInputError(f"cannot open task `{file}`: no such file")
        refuse_twice(file)
    names = [task for task in tasks if task not in files]
    # Its own tasks are ten thousand files, which are listed only where one is asked for. A file is
    # loaded by its path: what lies beside it is not asked for, and might run or take its name.
    manager = TaskManager(include_defaults=bool(names))
    for name in names:
        if name not in manager.all_tasks:
            raise InputError(
                f"lm-evaluation-harness knows no task `{name}`",
                nearest(name, manager.all_tasks) or "`lm-eval ls tasks` lists them",
            )
    loaded = {name: _load(manager, name, name) for name in names}
    loaded |= {file: _load(manager, str(Path(file).absolute()), file) for file in files}
    _check_names(loaded)
    for file in files:
        refuse_faults(file, loaded[file]["tasks"])
    every = {name: task for one in loaded.values() for name, task in one["tasks"].items()}
    return Tasks(
        loaded,
        {name: _sha256(task) for name, task in every.items()},
        {name: len(task.eval_docs) for name, task in every.items()},
        {name: task.higher_is_better() for name, task in every.items()},
    )


def _load(manager: Any, name: str, asked: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = manager.load([name])
    except (Exception, SystemExit) as error:
        raise load_fault(asked, error) from error
    finally:
        signals.raise_again()
    for task in found["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
    return found


def _sha256(task: Any) -> str:
    settings = {key: value for key, value in task.dump_config().items() if key not in _PLACES}
    shown = task.fewshot_docs() if task.get_config("num_fewshot") else ()
    content = [settings, *([dict(one) for one in some] for some in (task.eval_docs, shown))]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=_plain).encode()).hexdigest()


def _check_names(loaded: Mapping[str, Mapping[str, Any]]) -> None:
    """Each name is that of one task: scores and hashes go by it."""
    known: dict[str, str] = {}
    for asked, found in loaded.items():
        if not found["tasks"]:
            raise InputError(f"`{asked}`: key `task` is missing", "it names the task")
        for name in found["tasks"]:
            if (other := known.setdefault(name, asked)) != asked:
                raise InputError(
                    f"`{other}` and `{asked}` both have a task `{name}`",
                    "name one of them, or give the task of your own another name",
                )


def try_tasks(tasks: Tasks, model: Any, tokenizer: Any) -> list[TaskScore]:
    """Run the first items of each task, so that what cannot be run is known before any merge.

    Raises:
        InputError: A task fails, gives no finite value, or lacks a metric that its file asks for.
    """
    found = _run(tasks, model, tokenizer, limit=_TRIED)
    for score in found:
        if not math.isfinite(score.value):
            odd = [f", item {n}" for n, value in enumerate(score.items, 1) if math.isnan(value)]
            raise InputError(
                f"task `{score.task}`{odd[0] if odd else ''}: expected a finite `{score.metric}`,"
                f" found {score.value}"
            )
        if score.metric.partition(",")[0].lower() in LOSS_NAMES:
            raise InputError(
                f"task `{score.task}`: expected the name of another metric than a loss in nats,"
                f" found `{score.metric}`"
            )
    given = {(score.task, score.metric.partition(",")[0]) for score in found}
    for asked, loaded in tasks.loaded.items():
        for name, task in loaded["tasks"].items():
            refuse_missing(asked, name, task, {metric for of, metric in given if of == name})
    return found


def run_tasks(tasks: Tasks, model: Any, tokenizer: Any) -> list[TaskScore]:
    """Run tasks with the harness's own seeds, as others report them.

    Returns:
        Each metric of each task and group, with the scores of its items where it is their mean.

    Raises:
        InputError: The harness fails: a fault in a task.
    """
    return _run(tasks, model, tokenizer)


@stdout_to_stderr()
def _run(tasks: Tasks, model: Any, tokenizer: Any, limit: int | None = None) -> list[TaskScore]:
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    found: list[TaskScore] = []
    for name, loaded in tasks.loaded.items():
        try:
            _seed(loaded)
            # `simple_evaluate` does the same, and asks the system what it is, which takes seconds
            # for each model.
            with _quiet():
                results = lm_eval.evaluate(
                    lm=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
                    task_dict=loaded,
                    limit=limit,
                    bootstrap_iters=_RESAMPLED,
                    log_samples=True,
                )
        except (Exception, SystemExit) as error:
            reason = code_fault(name, loaded["tasks"].values(), error) or reason_of(error)
            raise InputError(f"lm-evaluation-harness failed on `{name}`: {reason}") from error
        finally:
            signals.raise_again()
        found += [
            score
            for task, values in results["results"].items()
            for score in _scores(task, values, results)
        ]
        for task in loaded["tasks"].values():
            task._instances = None  # each item's texts and answers, which it keeps otherwise
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's bars and its words on a model that is loaded already."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)


def _seed(loaded: Mapping[str, Any]) -> None:
    """As the harness does before each run, with its own defaults."""
    import random

    import torch

    random.seed(0)
    np.random.seed(1234)
    torch.manual_seed(1234)
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=1234)


def _scores(task: str, values: dict[str, Any], results: dict[str, Any]) -> Iterator[TaskScore]:
    """The harness writes `acc,none` and `acc_stderr,none` beside names and counts."""
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        se = values.get(f"{metric}_stderr,{filtered}")
        higher = results.get("higher_is_better", {}).get(task, {}).get(metric)
        samples = results.get("samples", {}).get(task, ())
        score = TaskScore(
            task,
            metric if filtered == "none" else f"{metric},{filtered}",
            float(value),
            float(se) if isinstance(se, int | float) else math.nan,
            "" if higher is None else "higher" if higher else "lower",
            results.get("n-samples", {}).get(task, {}).get("effective", 0),
        )
        yield _with_items(score, [s for s in samples if s.get("filter", filtered) == filtered])


def _with_items(score: TaskScore, samples: Sequence[Mapping[str, Any]]) -> TaskScore:
    """With each item's own score, where the value is their mean, and the standard error of that."""
    name = score.metric.partition(",")[0]
    found = [one.get(name) for one in sorted(samples, key=lambda one: int(one["doc_id"]))]
    numbers = [float(one) for one in found if isinstance(one, int | float | np.number)]
    if not found or len(numbers) < len(found):
        return score
    items = np.array([math.nan if one is None else one for one in within(numbers)])
    if not np.isfinite(items).all():
        # One such item leaves no mean either: it is known by its place.
        is_mean = within((score.value,)) == [None]
        return replace(score, items=tuple(items.tolist())) if is_mean else score
    if not math.isclose(items.mean(), score.value, rel_tol=1e-6, abs_tol=1e-9):
        return score
    se = ratio_estimate(items, np.ones(len(items)), len(items)).se
    return replace(score, se=se, items=tuple(items.tolist()))


def paired(ours: Sequence[TaskScore], theirs: Sequence[TaskScore]) -> list[TaskScore]:
    """Our scores less theirs, with standard errors paired by item where items have scores."""
    found = []
    other = {(one.task, one.metric): one for one in theirs}
    for one in ours:
        rival = other[one.task, one.metric]
        se, items = math.nan, ()
        if one.items and len(one.items) == len(rival.items):
            apart, each = np.array(one.items) - np.array(rival.items), np.ones(len(one.items))
            shares = right_or_wrong(each, np.array(one.items), np.array(rival.items))
            more = DISCORDANT if shares else 0.0
            se = ratio_estimate(apart, each, len(apart), discordant=more).se
            items = tuple(apart.tolist())
        found.append(replace(one, value=one.value - rival.value, se=se, items=items))
    return found


def _plain(value: object) -> str:
    """What stands in a hash for what JSON cannot hold; an address in memory would be no content."""
    return repr(value) if isinstance(value, bytes | complex) else type(value).__name__
