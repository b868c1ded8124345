"""A verdict's merge as a config that `mergeplan merge` and `mergekit-yaml` both run."""

from pathlib import Path
from typing import Any

from mergeplan.config.labels import draws_masks
from mergeplan.config.write import merge_config, to_yaml
from mergeplan.errors import InputError, nearest
from mergeplan.pool.pool import Pool, method_in, pool_of, size_in
from mergeplan.selection.write import rounded
from mergeplan.verdict.contenders import Contender
from mergeplan.verdict.verdict import Verdict
from mergeplan.verdict.words import value_text


def contender_config(one: Contender, pool: Pool, *, seed: int | None = None) -> dict[str, Any]:
    """The mergekit configuration of a merge, as data.

    Args:
        seed: Of masks, where none was measured with; `None` for the pool's.

    Raises:
        InputError: The pool lacks the method, the size or an expert.
    """
    merge = one.merge
    label, options = method_in(merge.method, merge.options, pool)
    size = size_in(merge.n_params, pool)
    for name in merge.subset:
        if name not in size.experts:
            raise InputError(f"the pool has no expert `{name}`", nearest(name, list(size.experts)))
    experts = [size.experts[name] for name in merge.subset]
    weights = None if merge.equal else rounded(merge.weights)
    config = merge_config(label, options, size.base, experts, size.out_dtype, weights)
    # A measured merge has the masks that it was measured with.
    own = pool.random_seed if seed is None else seed
    seed = int(merge.seed) if merge.seed.isdecimal() else own
    if seed and draws_masks(label, options):
        config["random_seed"] = seed
    return config


def config_of_verdict(
    verdict: Verdict, pool: Pool | str | Path, *, anyway: bool = False
) -> dict[str, Any]:
    """The mergekit configuration of a verdict's merge, as data.

    Args:
        verdict: What `verdict_of` or `calibrate` gave.
        pool: Its file, or as `load_pool` gives it.
        anyway: The best merge also where merging does not pay.

    Returns:
        A mergekit configuration, as `merge` takes it.

    Raises:
        InputError: There is nothing to merge, or the pool lacks the method, the size or an expert.
    """
    one = merge_to_write(verdict, anyway=anyway)
    if one is None:
        raise InputError(f"nothing is to be merged: {verdict.headline()}")
    return contender_config(one, pool_of(pool))


def contender_yaml(
    one: Contender, verdict: Verdict, pool: Pool, *, by: str, seed: int | None = None
) -> str:
    """The same as text, with the verdict in its comments.

    Args:
        by: The command that writes it.
        seed: As for `contender_config`.

    Raises:
        InputError: As for `contender_config`.
    """
    comments = [f"written by mergeplan {by}", verdict.headline()]
    if not _pays(one, verdict):
        comments.append("written all the same, as --anyway asks for")
    comments.append(f"{one.merge.name()}: {verdict.aim} {value_text(one)}")
    return to_yaml(contender_config(one, pool, seed=seed), comments)


def merge_to_write(
    verdict: Verdict, *, anyway: bool, wanted: Contender | None = None
) -> Contender | None:
    """The merge whose YAML is written; `None` where merging does not pay.

    Args:
        anyway: The best merge even then.
        wanted: Weights that were asked for, in the place of the verdict's merge.
    """
    if wanted is not None:
        return wanted if anyway or _pays(wanted, verdict) else None
    return verdict.merge or (verdict.best_merge if anyway else None)


def _pays(one: Contender, verdict: Verdict) -> bool:
    """Whether it is the answer, or better than base and single experts and as good as asked for."""
    if one is verdict.merge:
        return True
    sign = -1.0 if verdict.higher else 1.0
    known = [other.value for other in (verdict.base, verdict.expert) if other is not None]
    reaches = verdict.target is None or sign * one.value <= sign * verdict.target
    return reaches and all(sign * one.value < sign * value for value in known)
