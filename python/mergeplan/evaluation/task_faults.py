"""What of a task's settings the harness drops in silence, or fails on without naming the key.

It logs a metric that it does not know and goes on without one; a column that the data lack it takes
for the text itself, so that every answer is wrong.
"""

import contextlib
import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from mergeplan.display.text import listed, shown
from mergeplan.errors import InputError, nearest
from mergeplan.evaluation.task_sources import code_fault, files_fault, local_files, reason_of
from mergeplan.system.reading import CODE, read_text

_DATA = "data sets are downloaded at the first use; unset HF_HUB_OFFLINE for that"
_UNKNOWN = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(.+)'")
_UNDEFINED = re.compile(r"'(\w+)' is undefined")
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
_COLUMNS = ("doc_to_text", "doc_to_target", "doc_to_choice")
_METRIC_KEYS = ["metric", "aggregation", "higher_is_better", "hf_evaluate"]


def is_file(asked: str) -> bool:
    """Whether a task is given by a file, and not by its name in the harness."""
    return asked.endswith((".yaml", ".yml"))


def load_fault(asked: str, error: BaseException) -> InputError:
    """An error of the harness on loading a task, by the key that it is about.

    Args:
        asked: The name or file that was asked for.
    """
    from lm_eval.config.task import FewshotConfig, TaskConfig

    where = f"cannot load task `{asked}`"
    if match := _UNKNOWN.search(str(error)):
        shape = FewshotConfig if match[1] == "FewshotConfig" else TaskConfig
        known = sorted(shape.__dataclass_fields__)
        hint = nearest(match[2], known) or f"it has: {', '.join(known)}"
        part = " in `fewshot_config`" if shape is FewshotConfig else ""
        return InputError(f"{where}: unknown key `{match[2]}`{part}", hint)
    frames = list(traceback.walk_tb(error.__traceback__))
    # Whatever stage the task is at, its settings are known, and its data where they could be had.
    tasks = [one for frame, _ in frames if hasattr(one := frame.f_locals.get("self"), "_config")]
    data = getattr(tasks[-1], "dataset", None) if tasks else None
    if data is not None:
        task = tasks[-1]
        # What else it fails on, the first error says.
        with contextlib.suppress(Exception):
            for fault in chain(_splits(task), _columns(task, str(error)), _answers(task)):
                return InputError(f"{where}: {fault.message}", fault.hint)
    if reason := code_fault(asked, tasks[-1:], error):
        return InputError(f"{where}: {reason}")
    if any(frame.f_code.co_name == "download" for frame, _ in frames):
        files = local_files(tasks[-1]) if tasks else []
        if reason := files_fault(files):
            return InputError(f"{where}, key `dataset_kwargs`: {reason}")
        return InputError(f"{where}: {reason_of(error)}", None if files else _DATA)
    return InputError(f"{where}: {reason_of(error)}")


def refuse_twice(file: str) -> None:
    """Refuse a file in which a key stands twice: the harness takes the last.

    Raises:
        InputError: One does.
    """
    import yaml

    try:
        nodes = [yaml.compose(read_text(Path(file), CODE), yaml.SafeLoader)]
    except yaml.YAMLError:
        return  # the harness says what is wrong
    seen: set[int] = set()  # aliases may go in circles
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"task `{file}`: key `{key}` stands twice", "leave one of them")
        nodes += [value for _, value in node.value]


def refuse_faults(asked: str, tasks: Mapping[str, Any]) -> None:
    """Refuse what a file of the user's own says and the harness would drop.

    Args:
        asked: The file.
        tasks: Those that it holds, by their names.

    Raises:
        InputError: A metric, or a key of one, or an aggregation is not known; a key names a column
            that the data lack; an item has its answer not among its choices; or a function fails.
    """
    from lm_eval.api.task import ConfigurableTask

    for name, task in tasks.items():
        if not isinstance(task, ConfigurableTask):
            continue  # one of Python reads its data as it likes
        where = f"`{asked}`, task `{name}`"
        try:
            for fault in chain(_metrics(task), _columns(task), _answers(task)):
                raise InputError(f"{where}: {fault.message}", fault.hint)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            reason = code_fault(asked, [task], error) or reason_of(error)
            raise InputError(f"{where}: {reason}") from error


def refuse_missing(asked: str, name: str, task: Any, given: Collection[str]) -> None:
    """Refuse a task that does not give what it was asked for.

    Args:
        asked: The name or file that was asked for.
        given: Metrics of which it has given values.

    Raises:
        InputError: It gives none, or of a file of the user's own not each.
    """
    wanted = [one["metric"] for one in task.config.metric_list or ()] if is_file(asked) else []
    missing = [metric for metric in wanted if not callable(metric) and metric not in given]
    if missing or not given:
        of = f" of {listed(missing)}" if missing else ""
        raise InputError(
            f"`{asked}`, task `{name}`, key `metric_list`: expected metrics of"
            f" `output_type: {task.OUTPUT_TYPE}`, found no value{of}",
            f"it gives {listed(sorted(given))}" if given else None,
        )


def _metrics(task: Any) -> Iterator[InputError]:
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY

    for entry in task.config.metric_list or ():
        name = entry["metric"]
        if callable(name):
            continue
        where = f"key `metric_list`, metric `{name}`"
        for key in entry:
            hint = nearest(str(key), _METRIC_KEYS)
            # A metric of generated text may have settings of its own.
            own = task.OUTPUT_TYPE == "generate_until" and not task.config.process_results
            if key not in _METRIC_KEYS and (hint or not own):
                expected = f"expected {listed(_METRIC_KEYS)}"
                yield InputError(f"{where}: {expected}, found {shown(key)}", hint)
        if "higher_is_better" not in entry:
            # The harness logs what it takes, and goes on.
            yield InputError(
                f"{where}: key `higher_is_better` is missing",
                "write `higher_is_better: true`, or false where less is better",
            )
        higher = entry.get("higher_is_better", True)
        if not isinstance(higher, bool):
            yield InputError(
                f"{where}, key `higher_is_better`: expected true or false, found {shown(higher)}"
            )
        if not task.config.process_results and task._metric_fn_list[name] is None:
            known = sorted(METRIC_REGISTRY)
            yield InputError(
                f"key `metric_list`: expected a metric that lm-evaluation-harness knows, found"
                f" `{name}`",
                nearest(name, known) or f"it knows: {', '.join(known)}",
            )
        if task._aggregation_list.get(name) is None:
            found = entry.get("aggregation")
            known = sorted(AGGREGATION_REGISTRY)
            yield InputError(
                f"{where}, key `aggregation`: expected {listed(known, 20)}, found"
                f" {shown(found) if found is not None else 'nothing'}",
                nearest(str(found), known),
            )


def _splits(task: Any) -> Iterator[InputError]:
    for key in _SPLITS:
        found = getattr(task.config, key)
        if found is not None and found not in task.dataset:
            splits = list(task.dataset)
            yield InputError(
                f"key `{key}`: expected {listed(splits)}, found {shown(found)}",
                nearest(str(found), splits),
            )


def _columns(task: Any, reason: str = "") -> Iterator[InputError]:
    """Keys that name a column which the data lack: a word, or in a template that failed."""
    columns = list(task.eval_docs.features)
    undefined = _UNDEFINED.search(reason)
    for key in _COLUMNS:
        found = getattr(task.config, key)
        if not isinstance(found, str) or found in columns:
            continue
        word = undefined[1] if undefined and re.search(rf"\b{undefined[1]}\b", found) else found
        # An answer that is the same for all items is one where it is among the choices.
        if not word.isidentifier() or (key == "doc_to_target" and word in _choices(task)):
            continue
        yield InputError(
            f"key `{key}`: expected a column of the data, found `{word}`",
            nearest(word, columns)
            or f"columns are: {', '.join(columns)}; a text is written `\"{{{{ 'text' }}}}\"`",
        )


def _choices(task: Any) -> list[Any]:
    found = task.config.doc_to_choice
    return found if isinstance(found, list) else []


def _answers(task: Any) -> Iterator[InputError]:
    """An item whose answer is not among its choices scores 0, whatever the model."""
    if task.OUTPUT_TYPE != "multiple_choice" or task.config.process_results or task.multiple_input:
        return
    pairs = [(task.doc_to_target(doc), task.doc_to_choice(doc)) for doc in task.eval_docs]
    wrong = [n for n, (answer, choices) in enumerate(pairs, 1) if not _is_among(answer, choices)]
    if wrong:
        answer, choices = pairs[wrong[0] - 1]
        yield InputError(
            f"key `doc_to_target`: expected one of the item's choices, {listed(choices)}, or its"
            f" number from 0, found {shown(answer)} for item {wrong[0]}, and none for"
            f" {len(wrong)} of {len(pairs)} items"
        )


def _is_among(answer: Any, choices: list[Any]) -> bool:
    if isinstance(answer, list):
        return any(_is_among(one, choices) for one in answer)
    return answer in choices if isinstance(answer, str) else 0 <= answer < len(choices)
