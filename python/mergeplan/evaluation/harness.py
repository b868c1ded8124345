"""Downstream tasks through lm-evaluation-harness, on a model that is loaded already."""

from pathlib import Path
from typing import Any

from mergeplan.errors import InputError, MissingInputError, nearest
from mergeplan.evaluation.scores import TaskScore

_INSTALL = "pip install 'mergeplan[harness]'"


def check_tasks(tasks: tuple[str, ...]) -> Any:
    """Find the tasks before anything is loaded.

    Args:
        tasks: Names that the harness knows, or YAML files of tasks.

    Returns:
        What `run_tasks` takes.

    Raises:
        MissingInputError: The harness is not installed, or a file is not there.
        InputError: It knows no such task.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingInputError(
            f"tasks need lm-evaluation-harness: {error}", f"install it: `{_INSTALL}`"
        ) from error
    files = [Path(task) for task in tasks if task.endswith((".yaml", ".yml"))]
    for file in files:
        if not file.is_file():
            raise MissingInputError(f"cannot open task `{file}`: no such file")
    names = [task for task in tasks if not task.endswith((".yaml", ".yml"))]
    manager = TaskManager(include_path=sorted({str(file.parent.absolute()) for file in files}))
    names += [_name_in(file) for file in files]
    for name in names:
        if name not in manager.all_tasks:
            raise InputError(
                f"lm-evaluation-harness knows no task `{name}`",
                nearest(name, manager.all_tasks) or "`lm-eval ls tasks` lists them",
            )
    return manager, names


def _name_in(file: Path) -> str:
    from mergeplan.system.reading import TASK
    from mergeplan.system.yamlfile import read_yaml

    data = read_yaml(file, TASK)
    name = data.get("task") if isinstance(data, dict) else None
    if not isinstance(name, str):
        raise InputError(f"`{file}`: key `task` is missing", "it names the task")
    return name


def run_tasks(found: Any, model: Any, tokenizer: Any) -> list[TaskScore]:
    """Run the tasks that `check_tasks` found, with the harness's own seeds, as others report them.

    Raises:
        InputError: The harness fails: data that cannot be had, a fault in a task.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    manager, names = found
    try:
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=names,
            task_manager=manager,
            log_samples=False,
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"lm-evaluation-harness failed on {', '.join(names)}: {reason}",
            "data sets are downloaded at the first use; unset HF_HUB_OFFLINE for that",
        ) from error
    return [
        score
        for task, values in results["results"].items()
        for score in _scores(task, values, results)
    ]


def _scores(task: str, values: dict[str, Any], results: dict[str, Any]) -> list[TaskScore]:
    """The harness writes `acc,none` and `acc_stderr,none` beside names and counts."""
    scores = []
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        se = values.get(f"{metric}_stderr,{filtered}")
        higher = results.get("higher_is_better", {}).get(task, {}).get(metric)
        scores.append(
            TaskScore(
                task,
                metric if filtered == "none" else f"{metric},{filtered}",
                float(value),
                float(se) if isinstance(se, int | float) else float("nan"),
                {True: "higher", False: "lower"}.get(higher, ""),
                results.get("n-samples", {}).get(task, {}).get("effective", 0),
            )
        )
    return scores
