"""Which models are bases, and which are experts of which base: never a guess in silence."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from mergeplan.checkpoints.checkpoint import Checkpoint
from mergeplan.checkpoints.heads import count_params
from mergeplan.checkpoints.opening import open_expert
from mergeplan.display.text import format_count
from mergeplan.errors import InputError, MergeplanError, MissingInputError
from mergeplan.inspection.compatibility import compare
from mergeplan.onboarding.bases import HINT, base_in, given_in, groups_of, named_base, open_model
from mergeplan.onboarding.looking import Found, Model, paths, plain_name, reason
from mergeplan.planning.options import PlanOptions
from mergeplan.pool.file import BASE
from mergeplan.pool.pool import SIZE_TOLERANCE


@dataclass
class Size:
    """A base and its experts.

    Attributes:
        why: What tells that it is the base.
        experts: Folder by name.
        notes: About an expert, by its name.
    """

    base: Model
    why: str
    experts: dict[str, Path] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def n_params(self) -> int:
        return count_params(self.base.checkpoint)

    def add(self, place: Path, name: str, note: str) -> None:
        """Add an expert, under a name of its own."""
        name = plain_name(name)
        longer = plain_name(f"{place.absolute().parent.name}-{name}")
        numbered = (f"{longer}-{number}" for number in itertools.count(2))
        taken = {BASE, *self.experts}
        free = next(n for n in itertools.chain((name, longer), numbered) if n not in taken)
        self.experts[free] = place
        self.notes[free] = note


def find_sizes(found: Found, given: Sequence[Path] = ()) -> list[Size]:
    """Tell bases from experts; who fits no base goes to `found.left_out`.

    Args:
        given: Bases that the user names, one for each size; then there are no others.

    Returns:
        The sizes, small ones first; each has an expert at least.

    Raises:
        MissingInputError: There is no model, or no base.
        InputError: Two models could be the base, or no expert fits.
    """
    models = {model.key: model for model in found.models}
    chosen = {}
    for path in given:
        if not path.is_dir():
            raise MissingInputError(f"the base `{path}` is not a folder", "give the base's folder")
        model = open_model(path)
        chosen[model.key] = models.setdefault(model.key, model)
    named = {adapter.place: named_base(adapter, models) for adapter in found.adapters}
    by_base: dict[str, list[Path]] = {}
    for place, (base, _) in named.items():
        if base is not None:
            by_base.setdefault(base.key, []).append(place)
            if not chosen:
                models.setdefault(base.key, base)
    sizes: list[Size] = []
    lone: list[list[Model]] = []
    for group in groups_of(models.values()):
        told = given_in(group, chosen) if chosen else base_in(group, by_base)
        if told is None:
            lone.append(group)
            continue
        size = Size(*told)
        for model in group:
            if model is not size.base:
                _add_model(size, model, found)
        sizes.append(size)
    _add_adapters(found, named, sizes, [] if chosen else lone)
    for model in itertools.chain(*lone):
        if sizes and all(model is not size.base for size in sizes):
            found.left_out[model.place] = _stranger(model, sizes)
    return _judged(sizes, lone, found)


def _add_model(size: Size, model: Model, found: Found) -> None:
    why = _misfit(size.base.checkpoint, model.checkpoint)
    if why:
        found.left_out[model.place] = f"does not fit the base `{size.base.place}`: {why}"
    else:
        size.add(model.place, model.name, "")


def _add_adapters(
    found: Found,
    named: dict[Path, tuple[Model | None, str]],
    sizes: list[Size],
    lone: Sequence[Sequence[Model]],
) -> None:
    """Each adapter to the base that it names, else to the only one that it fits.

    Args:
        named: The base of each adapter, or why it has none.
        lone: Models without a base; one that is alone is the base of the adapters that fit it.
    """
    maybe = [Size(group[0], "the only model that adapters fit") for group in lone if len(group) < 2]
    for adapter in found.adapters:
        base, why = named[adapter.place]
        own = [size for size in sizes if base is not None and size.base.key == base.key]
        misfits = {}
        fitting = []
        for size in own or [*sizes, *maybe]:
            misfit = _adapter_misfit(size, adapter.place)
            misfits[size.base.place] = misfit
            if not misfit:
                fitting.append(size)
        if len(fitting) == 1:
            note = "adapter" if own else f"adapter; {why or f'names `{adapter.named}`'}; it fits"
            fitting[0].add(adapter.place, adapter.name, note)
        elif fitting:
            bases = paths(size.base.place for size in fitting)
            found.left_out[adapter.place] = f"{why}: it fits several bases, {bases}"
        else:
            fits = [f"does not fit the base `{place}`: {w}" for place, w in misfits.items()]
            found.left_out[adapter.place] = "; ".join([*([why] if why else []), *fits[:1]])
    sizes += [size for size in maybe if size.experts]


def _adapter_misfit(size: Size, adapter: Path) -> str:
    try:
        return _misfit(size.base.checkpoint, open_expert(adapter, size.base.place))
    except (MergeplanError, OSError) as error:
        return reason(error).removeprefix(f"`{adapter}`: ")


def _misfit(base: Checkpoint, expert: Checkpoint) -> str:
    """Why an expert cannot be merged into a base; empty where it can."""
    problems, _ = compare([base, expert], base, PlanOptions())
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return problems[0].message + more if problems else ""


def _stranger(model: Model, sizes: Sequence[Size]) -> str:
    nearest = min(sizes, key=lambda size: abs(size.n_params - count_params(model.checkpoint)))
    why = _misfit(nearest.base.checkpoint, model.checkpoint)
    return f"does not fit the base `{nearest.base.place}`: {why}" if why else "has no base here"


def _judged(sizes: list[Size], lone: Sequence[Sequence[Model]], found: Found) -> list[Size]:
    """The sizes that have experts, small ones first.

    Raises:
        MissingInputError, InputError: There are none, or two bases are of one size.
    """
    whole = sorted((size for size in sizes if size.experts), key=lambda size: size.n_params)
    if not whole:
        _refuse(sizes, lone, found)
    for size in sizes:
        if not size.experts:
            found.left_out[size.base.place] = "a base without experts"
    for one, other in itertools.pairwise(whole):
        if other.n_params < SIZE_TOLERANCE * one.n_params:
            both = paths(size.base.place for size in (one, other))
            raise InputError(
                f"two bases are of about the same size, {format_count(one.n_params)} and"
                f" {format_count(other.n_params)}: {both}",
                f"a pool has one base of each size; {HINT}",
            )
    return whole


def _refuse(sizes: Sequence[Size], lone: Sequence[Sequence[Model]], found: Found) -> NoReturn:
    several = [group for group in lone if len(group) > 1]
    passed = [f"`{place}`: {why}" for place, why in found.left_out.items()]
    more = f" and {len(passed) - 3} more" if len(passed) > 3 else ""
    left = f"left out: {'; '.join(passed[:3])}{more}" if passed else None
    if sizes:
        raise InputError(f"the base `{sizes[0].base.place}` has no expert that fits", left)
    if several:
        models = paths(model.place for model in several[0])
        raise InputError(f"nothing tells which of these models is the base: {models}", HINT)
    if lone:
        models = paths(model.place for group in lone for model in group)
        raise InputError(
            f"no base with experts: of {models}, no two have the same tensors",
            left or "give the folders of a base and of models or adapters that were made from it",
        )
    if found.adapters:
        raise MissingInputError(f"the adapters have no base here; {left}", HINT)
    raise MissingInputError(
        "there is no model or adapter in these folders",
        left or "folders are looked into two levels deep; hidden ones are not",
    )
