"""What a calibration is asked for, what that means for each method, and what it will take."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mergeplan.calibration.automatic_slopes import settle_slopes, slopes_pay
from mergeplan.calibration.curve_rounds import CurvePlan
from mergeplan.calibration.decision import CurveGoal
from mergeplan.calibration.going_on import AUTO_DTYPE, DTYPE, HALF
from mergeplan.calibration.identity import RunIdentity
from mergeplan.calibration.limits import Budget
from mergeplan.calibration.preflight import CheckedCalibration, check_calibration
from mergeplan.calibration.run_folder import has_measured, recorded_in
from mergeplan.calibration.setup import Setup, hash_texts
from mergeplan.calibration.sizes import refuse_unlike_sizes, smaller_sizes
from mergeplan.calibration.subset_plan import SubsetPlan
from mergeplan.config.seed import seed_of
from mergeplan.config.transfer import AUTO, OFF, REQUIRED, check_transfer
from mergeplan.errors import InputError, nearest
from mergeplan.evaluation.halves import short_domains
from mergeplan.evaluation.loading import find_device
from mergeplan.evaluation.measured import read_scores
from mergeplan.evaluation.options import TOKENS, EvaluationOptions
from mergeplan.evaluation.own_documents import read_files
from mergeplan.evaluation.resampling import LEAST_GROUPS
from mergeplan.law.scale import Scale
from mergeplan.measurements.metrics import targets_of
from mergeplan.measurements.rows import MACRO, Measurement, parse_shares
from mergeplan.pool.opening import refuse_closed
from mergeplan.pool.pool import Pool, load_pool
from mergeplan.pool.subsets import SubsetMerge, subset_merge
from mergeplan.system.ranges import LARGEST_POOL, check_number, check_seed, check_several

ALL, WHERE_NEEDED = TOKENS


@dataclass(frozen=True)
class ChoiceGoal:
    """The best subset is asked for, and not how many experts to merge.

    Attributes:
        domains: What decides: a domain, or `code=2,math`; `None` for the macro mean.
        free_sum: Whether to measure single experts, all, and some subsets at half strength too.
        transfer: Whether a larger base leans on a smaller one of the same experts: `auto`, where
            enough carries over, `off`, or `required`.
    """

    domains: str | None = None
    free_sum: bool = False
    transfer: str = AUTO

    def __post_init__(self) -> None:
        """Raises `InputError` for a transfer that there is not."""
        check_transfer(self.transfer)


@dataclass(frozen=True)
class CalibrateOptions:
    """What to calibrate, how far, and where.

    Attributes:
        methods: Labels of the pool; none for all of them.
        wish: What k is for; its confidence also ends the search for the best subset.
        choosing: Measure for the best subset; `None` for the best k.
        ks: Sizes of subsets that may be measured; empty for all.
        until: Stop where no k that is still possible is farther from the answer.
        budget: Most that each method may take at each size.
        scan: Whether to try other lambdas with all experts.
        seed: Of the choice of subsets, and of random masks; `None` for the pool's `random_seed`, or
            else 0.
        also: Subsets that are measured beside the rounds, by each method.
        listed: Measure these merges and no others, whatever they tell; `None` to go by rounds.
        tokens: `all` documents for every merge, or `where-needed`: few at first, and more where a
            merge may be the best; only for the best subset.
        gradients: Whether merges are measured with the slopes of their losses along the experts'
            weights, which takes about three times as long and says one number more for each
            expert; only for the best subset, of methods that merge by weighted sums alone. `None`
            for a few merges, where that saves others; see `automatic_slopes`.
        half: Of the documents; `None` for the selection half where every domain has twelve
            documents or more in each, else for what `setup` says.
        ray: `local` or the address of a Ray cluster; `None` for this process.
    """

    methods: tuple[str, ...] = ()
    wish: CurveGoal = field(default_factory=CurveGoal)
    choosing: ChoiceGoal | None = None
    ks: tuple[int, ...] = ()
    until: int = 1
    budget: Budget = field(default_factory=Budget)
    scan: bool = True
    seed: int | None = None
    also: tuple[tuple[str, ...], ...] = ()
    listed: tuple[SubsetMerge, ...] | None = None
    tokens: str = ALL
    gradients: bool | None = None
    half: str | None = None
    setup: Setup = field(default_factory=Setup)
    ray: str | None = None

    @property
    def partly(self) -> bool:
        """Whether merges are scored on parts of the documents."""
        return self.tokens == WHERE_NEEDED

    @property
    def leaning(self) -> bool:
        """Whether a larger size may lean on a smaller one."""
        return self.choosing is not None and self.choosing.transfer != OFF

    def gradients_of(self, pool: Pool, size: int, label: str) -> bool | None:
        """The same of a method at a size: `None` only where a few save others."""
        if self.gradients is None and not slopes_pay(pool, size, label, leaning=self.leaning):
            return False
        return self.gradients

    def __post_init__(self) -> None:
        """Raises `InputError` for a value that cannot be, before anything is measured."""
        for name, kind in (("wish", CurveGoal), ("budget", Budget), ("setup", Setup)):
            if not isinstance(getattr(self, name), kind):
                found = type(getattr(self, name)).__name__
                raise InputError(f"`{name}`: expected a `{kind.__name__}`, found a `{found}`")
        check_several(self.methods, "methods")
        if self.tokens not in TOKENS:
            hint = nearest(self.tokens, list(TOKENS)) or f"known are {', '.join(TOKENS)}"
            raise InputError(f"`tokens`: there is no `{self.tokens}`", hint)
        own = self.setup.tasks or self.setup.evaluation.scorer is not None
        if self.partly and own:
            raise InputError(
                "`tokens`: tasks and scorers are given all that they ask for",
                "take `all`, or leave out the tasks and the scorer",
            )
        if self.partly and (self.choosing is None or self.listed is not None):
            raise InputError(
                "`tokens`: only the search for the best subset scores merges on fewer documents",
                "ask for the best subset (`--for select`, without `--subsets`)",
            )
        if self.gradients:
            self._check_gradients()
        check_number(self.until, "until", 0, LARGEST_POOL, whole=True)
        if self.seed is not None:
            check_seed(self.seed)

    def _check_gradients(self) -> None:
        if self.setup.evaluation.scorer is not None:
            raise InputError(
                "gradients are of losses on texts, and a scorer's measure has none",
                "leave out `--gradients`, or the scorer",
            )
        if self.choosing is None or self.listed is not None:
            raise InputError(
                "gradients serve the search for the best subset alone",
                "ask for it (`--for select`, without `--subsets`), or leave out `--gradients`",
            )
        if self.partly:
            raise InputError(
                "gradients are of the losses on all documents",
                "leave out `--gradients`, or `--tokens where-needed`",
            )


def settle(
    pool_file: Path, folder: Path, options: CalibrateOptions
) -> tuple[CalibrateOptions, CheckedCalibration]:
    """Whatever can be checked before anything is measured, and the half of the documents decided.

    A run that goes on keeps its own, and the dtype that `auto` was settled to. Where `max_tokens`
    leaves of a half fewer documents than tell anything of other texts, all are scored.

    Raises:
        InputError: The pool, a text or the run is at fault, or the pool lacks what is asked for.
    """
    refuse_closed(load_pool(pool_file))
    half = options.half or options.setup.evaluation.half
    unasked = options.half is None and half == "all"
    if unasked:
        half = _half_of(load_pool(pool_file), folder, options.setup.evaluation)
    options = _with_half(options, half)
    if options.gradients and options.setup.dtype == "auto" and options.setup.on_cpu():
        # In bfloat16 a slope is a sum of numbers of three digits.
        options = replace(options, setup=replace(options.setup, dtype="float32"))
    tried = _scored_bases(folder)
    checked = check_options(pool_file, options, tried)
    scored = (len(domain.lines) for text in checked.texts for domain in text.domains.values())
    begins = unasked and half == "selection" and _recorded(folder) is None
    if begins and min(scored) < LEAST_GROUPS:
        options = _with_half(options, "all")
        checked = check_options(pool_file, options, tried)
    before = _recorded(folder)
    if options.choosing is None or options.listed is not None:
        options = replace(options, gradients=False)
    else:
        wanted, checked = settle_slopes(
            checked,
            options.gradients,
            before,
            partly=options.partly,
            cluster=options.ray is not None,
        )
        options = replace(options, gradients=wanted)
    settled = before and before.arithmetic.get(AUTO_DTYPE)
    if settled and options.setup.dtype in ("auto", settled):
        # What `auto` came to may also be said.
        checked = checked.where(DTYPE, "auto").where(AUTO_DTYPE, settled)
    return options, checked


def _with_half(options: CalibrateOptions, half: str) -> CalibrateOptions:
    evaluation = replace(options.setup.evaluation, half=half)
    evaluation.check()
    return replace(options, half=half, setup=replace(options.setup, evaluation=evaluation))


def _half_of(pool: Pool, folder: Path, evaluation: EvaluationOptions) -> str:
    if not pool.data and evaluation.scorer is None:
        return "all"
    if (before := _recorded(folder)) is not None:
        if HALF in before.arithmetic:
            return str(before.arithmetic[HALF])
        for half in ("all", "selection"):
            chosen = replace(evaluation, half=half)
            texts = list(before.texts.values())[: len(pool.sizes)]
            if texts == [hash_texts(pool, size, chosen)[:16] for size in range(len(texts))]:
                return half
    return "all" if short_domains(read_files(pool.data, evaluation.scorer)) else "selection"


def _recorded(folder: Path) -> RunIdentity | None:
    """What a run measures that has measured something."""
    before = recorded_in(folder)
    return before if has_measured(folder) else None


def _scored_bases(folder: Path) -> frozenset[int]:
    """Sizes whose base a run has scored: its scorer and its tasks, which have to be the same, were
    tried on it."""
    if _recorded(folder) is None:
        return frozenset()
    return frozenset(one.merge.size for one in read_scores(folder) if not one.merge.k)


def check_options(
    pool_file: Path, options: CalibrateOptions, tried: Collection[int] = ()
) -> CheckedCalibration:
    """Whatever can be checked before anything is measured.

    Args:
        tried: Sizes on whose base nothing has to be tried again.

    Raises:
        InputError: The pool is at fault, or lacks what is asked for.
    """
    pool = load_pool(pool_file)
    if options.ray is None:
        find_device(options.setup.device)
    checked = check_calibration(pool, options.methods, options.setup, options.ks, tried)
    if options.wish.target_loss is not None and not checked.identity.metric:
        Scale().check(options.wish.target_loss)
    domains = options.choosing.domains if options.choosing else None
    for name in parse_shares(domains) if domains else ():
        known = list(checked.texts[0].domains)
        if name not in (*known, MACRO):
            hint = nearest(name, known) or f"it has: {', '.join(known)}"
            raise InputError(f"--domains: the pool has no domain `{name}`", hint)
    if options.choosing and options.choosing.transfer == REQUIRED:
        refuse_unlike_sizes(pool)
    for subset in options.also:
        _check_subset(subset, pool)
    return checked


def _check_subset(subset: tuple[str, ...], pool: Pool) -> None:
    """Every expert is there at one size or more, and stands once.

    Raises:
        InputError: One is not.
    """
    known = list(dict.fromkeys(name for size in pool.sizes for name in size.experts))
    for name in subset:
        if name not in known:
            hint = nearest(name, known) or f"it has: {', '.join(known)}"
            raise InputError(f"`also`: the pool has no expert `{name}`", hint)
    if not subset or len(set(subset)) < len(subset):
        raise InputError(f"`also`: expected different experts, found `{'+'.join(subset)}`")


def also_merges(
    checked: CheckedCalibration, options: CalibrateOptions, size: int
) -> list[SubsetMerge]:
    """The named merges of a size, by each method."""
    seed, _ = seed_of(checked.pool.random_seed, options.seed, "the pool")
    experts = checked.pool.sizes[size].experts
    return [
        subset_merge(checked.pool, size, label, subset, seed=seed)
        for subset in options.also
        if set(subset) <= set(experts)
        for label in checked.labels
    ]


def plans_of(
    checked: CheckedCalibration,
    options: CalibrateOptions,
    size: int,
    smaller: Sequence[Measurement] = (),
) -> Sequence[CurvePlan] | Sequence[SubsetPlan]:
    """One for each method.

    Args:
        smaller: What was measured at smaller sizes, to choose the best subset.
    """
    choosing = options.choosing
    seed, _ = seed_of(checked.pool.random_seed, options.seed, "the pool")
    if choosing is not None:
        return [
            SubsetPlan(
                pool=checked.pool,
                size=size,
                label=label,
                domains=targets_of(choosing.domains, checked.identity.metric),
                confidence=options.wish.confidence,
                free_sum=choosing.free_sum,
                budget=options.budget,
                seed=seed,
                partly=options.partly,
                gradients=options.gradients_of(checked.pool, size, label),
                leaning=options.leaning and bool(smaller_sizes(checked.pool, size)),
                smaller=tuple(smaller),
            )
            for label in checked.labels
        ]
    return [
        CurvePlan(
            pool=checked.pool,
            size=size,
            label=label,
            wish=options.wish,
            ks=options.ks,
            until=options.until,
            budget=options.budget,
            scan=options.scan,
            seed=seed,
        )
        for label in checked.labels
    ]


def pool_sizes(checked: CheckedCalibration) -> tuple[int, ...]:
    """Experts of each size."""
    return tuple(len(size.experts) for size in checked.pool.sizes)
