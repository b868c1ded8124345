"""What is known of a tuning before a model runs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergeplan.calibration.going_on import DTYPE, LORA_EXACT, MAX_TOKENS, ORDER, SEED, WINDOWS
from mergeplan.calibration.identity import RunIdentity, models_of
from mergeplan.config.labels import elects
from mergeplan.errors import InputError
from mergeplan.evaluation.halves import UNGROUPED
from mergeplan.evaluation.loading import (
    context_of,
    import_transformers,
    load_model_config,
    load_tokenizer,
)
from mergeplan.evaluation.options import BY_DOCUMENT
from mergeplan.evaluation.texts import Texts
from mergeplan.merging.slopes import Slopes
from mergeplan.pool.bases import check_bases
from mergeplan.pool.pool import Pool, pool_of
from mergeplan.pool.vocabularies import check_vocabularies
from mergeplan.tuning.aim import Aim
from mergeplan.tuning.groups import Groups
from mergeplan.tuning.options import TuneOptions
from mergeplan.tuning.recipe import Recipe, choose_method, seed_for
from mergeplan.tuning.split import TuneTexts, others, split
from mergeplan.tuning.step import Region

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before a model runs."""

    pool: Pool
    size: int
    experts: tuple[str, ...]
    recipe: Recipe
    slopes: Slopes
    aim: Aim
    region: Region
    texts: TuneTexts
    identity: RunIdentity
    warnings: tuple[str, ...]

    @property
    def equal(self) -> Array:
        """Weights of the average, shape (n_experts, n_groups)."""
        total = 1.0 if self.region.total is None else self.region.total
        weight = total / len(self.experts)
        weight = min(max(weight, self.region.low), self.region.high)
        return np.full((len(self.experts), len(self.recipe.groups)), weight)


def prepare(pool: Pool | str | Path, options: TuneOptions | None = None) -> Prepared:
    """Check everything, open the experts and encode the texts.

    Raises:
        MissingInputError: torch or transformers is not installed, or a model is not there.
        InputError: The pool, a model, a text or an option is at fault, or a domain has too few
            documents.
    """
    options = options or TuneOptions()
    options.check()
    import_transformers()
    pool = pool_of(pool)
    setup = options.setup
    label, settings = choose_method(pool, options.method)
    number = _size(pool, options.n_params)
    size = pool.sizes[number]
    if len(size.experts) < 2:
        raise InputError("expected two experts or more, found one: there is nothing to weigh")
    if not pool.data:
        raise InputError(
            "the pool has no `data`: there is nothing to tune on",
            "list each domain's held-out texts under `data`",
        )
    aim = Aim.of(pool.data, options.domains, worst=options.worst, keep=options.keep)
    region = options.region(len(size.experts), elects=elects(label, settings))
    notes = [*check_bases(pool), *check_vocabularies(pool, allow=setup.allow_vocabulary_mismatch)]
    texts, more = _texts(pool, number, setup.evaluation.seed, options)
    recipe = Recipe(
        label,
        settings,
        size.base,
        tuple(size.experts.values()),
        size.out_dtype,
        Groups(options.by, ("all",), {}),
        seed_for(label, settings, setup.evaluation.seed),
    )
    slopes = Slopes(recipe.config(np.ones((len(size.experts), 1))), setup.streaming())
    groups = Groups.find([job.tensor for job in slopes.jobs], options.by)
    evaluation = setup.evaluation
    arithmetic = {
        DTYPE: setup.dtype,
        MAX_TOKENS: evaluation.max_tokens,
        SEED: evaluation.seed,
        WINDOWS: [evaluation.max_length, evaluation.stride],
        **({LORA_EXACT: True} if setup.lora_exact else {}),
        "`--by`": options.by,
        "the method": [label, settings],
        ORDER: list(size.experts),
    }
    hashes = {
        "the text to tune on": texts.gradient.sha256[:16],
        "the text to report": texts.reporting.sha256[:16],
    }
    identity = RunIdentity(models_of(_only(pool, number)), hashes, arithmetic, texts.gradient.cut)
    return Prepared(
        pool, number, tuple(size.experts), replace(recipe, groups=groups), slopes, aim, region,
        texts, identity, (*notes, *more),
    )  # fmt: skip


def _size(pool: Pool, n_params: float | None) -> int:
    if n_params is not None:
        return pool.nearest_size(n_params)
    if len(pool.sizes) > 1:
        raise InputError(
            f"the pool has {len(pool.sizes)} sizes, and one is tuned at a time",
            "name one by its parameters, such as `--size 1B`",
        )
    return 0


def _only(pool: Pool, number: int) -> Pool:
    return replace(pool, sizes=(pool.sizes[number],))


def _texts(pool: Pool, number: int, seed: int, options: TuneOptions) -> tuple[TuneTexts, list[str]]:
    base = pool.sizes[number].base
    tokenizer, context = load_tokenizer(base), context_of(load_model_config(base))
    choosing, reporting = (
        Texts.prepare(
            pool.data,
            tokenizer,
            replace(options.setup.evaluation, half=half),
            context=context,
        )
        for half in ("selection", "check")
    )
    masks = split(choosing, seed)
    ungrouped = [UNGROUPED] if choosing.cut == BY_DOCUMENT else []
    notes = [*choosing.left_out, *reporting.left_out, *choosing.faults, *ungrouped]
    return TuneTexts(choosing.only(others(masks)), choosing.only(masks), reporting), notes
