"""Compare several models: on the same tokens, and by what they make of the same prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergeplan.checkpoints.names import parts_of
from mergeplan.checkpoints.opening import open_stored
from mergeplan.errors import InputError
from mergeplan.evaluation.columns import columns_of
from mergeplan.evaluation.comparison import Comparison
from mergeplan.evaluation.completions import Completion, complete
from mergeplan.evaluation.evaluate import evaluate_each
from mergeplan.evaluation.loading import load_model, load_model_configs, load_tokenizer
from mergeplan.evaluation.options import EvaluationOptions
from mergeplan.evaluation.prompts import read_prompts
from mergeplan.evaluation.sources import Data, files_of
from mergeplan.planning.conversation import chat_template
from mergeplan.system.files import expanded
from mergeplan.system.progress import Shown


def compare(
    models: Sequence[str | Path],
    data: Data = (),
    options: EvaluationOptions | None = None,
    *,
    prompts: str | Path | None = None,
    max_new_tokens: int = 60,
    tasks: tuple[str, ...] = (),
    dtype: str = "auto",
    device: str = "auto",
    progress: Shown = None,
) -> Comparison:
    """Models by domains, and which of them is better than every other; one in memory at a time.

    Args:
        models: Local folders, or `base+adapter`, two or more; for `data`, of one tokenizer.
        data: As for `evaluate`; with `tasks`, a scorer or `prompts` none is needed.
        prompts: A `.txt` of one prompt a line, or a `.jsonl` with `text`, `prompt` or `messages`:
            each model completes them greedily.
        max_new_tokens: Most tokens of a completion.
        tasks: Of lm-evaluation-harness, as for `evaluate_fully`.
        dtype, device, progress: As for `evaluate`.

    Returns:
        A table, as text, Markdown or CSV, and the completions side by side.

    Raises:
        MissingInputError: A model or a file is not there.
        InputError: There is one model only, their tokenizers differ, there is nothing to compare
            them on, or a file or an option is at fault.
    """
    options = options or EvaluationOptions()
    folders = [expanded(path) for path in models]
    _check(folders, prompts is not None, options, max_new_tokens)
    if options.scorer is None:  # which may load what it likes
        load_model_configs(folders)
    scored = bool(files_of(data) or tasks or options.scorer)
    if not scored and prompts is None:
        raise InputError("there is nothing to compare the models on", "give data, or prompts")
    asked = read_prompts(prompts) if prompts is not None else ()
    completions: list[tuple[Completion, ...]] = []

    def visit(folder: Path, model: Any) -> None:
        completions.append(complete(folder, model, asked, max_new_tokens=max_new_tokens))

    evaluations = []
    if scored:
        evaluations = evaluate_each(
            folders,
            data,
            options,
            tasks=tasks,
            dtype=dtype,
            device=device,
            progress=progress,
            visit=visit if asked else None,
        )
    else:
        for folder in folders:  # before the first is loaded
            load_tokenizer(folder)
        for folder in folders:
            visit(folder, load_model(folder, dtype=dtype, device=device))
    names = short_names(folders)
    warnings = dict.fromkeys(warning for one in evaluations for warning in one.warnings)
    if options.scorer is None:
        warnings |= dict.fromkeys(text for folder in folders for text in _unused_template(folder))
    for name, one in zip(names, evaluations, strict=False):
        warnings |= dict.fromkeys(f"model `{name}`, {fault}" for fault in one.scores.faults())
    return Comparison(
        names,
        tuple(columns_of(evaluations)) if evaluations else (),
        asked,
        tuple(completions),
        evaluations[0].data_hash if evaluations else "",
        evaluations[0].left_out if evaluations else (),
        tuple(warnings),
    )


def _check(
    folders: Sequence[Path], prompted: bool, options: EvaluationOptions, max_new_tokens: int
) -> None:
    if len(folders) < 2:
        raise InputError(
            f"expected two models or more, found {len(folders)}", "of one, `evaluate` tells all"
        )
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise InputError(f"`{folders[number]}` is named twice", "name each model once")
    if prompted and options.scorer is not None:
        raise InputError(
            "prompts and a scorer do not go together: it may load what does not generate",
            "compare the completions in a run of their own",
        )
    if max_new_tokens < 1:
        raise InputError(f"`max_new_tokens`: expected 1 or more, found {max_new_tokens}")


def _unused_template(folder: Path) -> list[str]:
    """A warning where an adapter has a chat template that its base has not."""
    checkpoint = open_stored(str(folder))
    if not checkpoint.is_adapted:
        return []
    own = chat_template(checkpoint.path)
    places = {source.path for source in checkpoint.sources} - {checkpoint.path}
    return [
        f"`{place}`: the adapter's chat template is not that of its base, which is used, as in a"
        " merge"
        for place in sorted(places)
        if chat_template(place) not in (None, own)
    ]


def short_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The ends of paths by which they differ, and no more of anybody's machine.

    >>> short_names([Path("/a/x/merged"), Path("/a/y/merged"), Path("/a/base")])
    ('x/merged', 'y/merged', 'base')
    >>> short_names([Path("/a/base+/a/lora")])
    ('base+lora',)
    """
    parts = [[Path(p).absolute().parts for p in parts_of(str(folder))] for folder in folders]

    def ends(own: list[tuple[str, ...]], depth: int) -> str:
        return "+".join(str(Path(*one[-depth:])) for one in own)

    def name(own: list[tuple[str, ...]]) -> str:
        depth = 1
        while depth < max(map(len, own)) and (
            sum(ends(other, depth) == ends(own, depth) for other in parts) > 1
        ):
            depth += 1
        return ends(own, depth)

    return tuple(map(name, parts))
