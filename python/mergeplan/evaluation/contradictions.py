"""What `--as` says of a merge beside what its manifest says: the one fills the other's gaps."""

import json
import math
from collections.abc import Mapping
from typing import Any

from mergeplan.config.labels import LABELS, method_of
from mergeplan.config.methods import METHODS
from mergeplan.errors import InputError
from mergeplan.evaluation.provenance import Provenance
from mergeplan.measurements.columns import join_cell
from mergeplan.system.ranges import parse_options

_POOL = "experts go by their folders' names, or by a pool's: give its pool.yml as --data"


def filled(said: Mapping[str, str], known: Provenance) -> dict[str, str]:
    """All that both say.

    Args:
        said: What `--as` says, by key.

    Raises:
        InputError: They contradict each other, or an option has no single value in the config.
    """
    merge = dict(said)
    experts = _experts(merge, known)
    if experts:
        merge.setdefault("subset", join_cell(experts))
        merge.setdefault("k", str(len(experts)))
        _weights(merge, experts, known)
    if known.method is not None:
        _method(merge, known)
    if known.seed is not None:
        if merge.get("seed", str(known.seed)) != str(known.seed):
            raise _contradiction("seed", merge["seed"], str(known.seed), known)
        merge["seed"] = str(known.seed)
    return merge


def _experts(merge: Mapping[str, str], known: Provenance) -> tuple[str, ...]:
    """The experts in the order that is wanted; where no base is known, fewer may be meant."""
    there = known.experts
    if not there:
        return ()
    if "subset" in merge:
        given = tuple(name.strip() for name in merge["subset"].split("+") if name.strip())
        fewer = known.base is None and given and set(given) <= {*there}
        if not fewer and sorted(given) != sorted(there):
            raise _contradiction("subset", merge["subset"], join_cell(there), known, _POOL)
        there = given
    k = merge.get("k", str(len(there)))
    if k != str(len(there)):
        # One of them may be the base, which names nobody.
        if known.base is None and "subset" not in merge and k.isdecimal() and int(k) < len(there):
            return ()
        raise _contradiction("k", k, f"{len(there)} ({join_cell(there)})", known)
    return there


def _weights(merge: dict[str, str], experts: tuple[str, ...], known: Provenance) -> None:
    if "weights" in merge:
        shares = [known.shares[name] for name in experts] if known.shares else None
        try:
            given = [float(weight) for weight in merge["weights"].split("+")]
        except ValueError as error:
            raise InputError(
                f"--as `weights={merge['weights']}`: expected numbers joined by `+`"
            ) from error
        if shares is None:
            return
        pairs = zip(given, shares, strict=False)
        near = all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9) for a, b in pairs)
        if len(shares) != len(given) or not near:
            found = join_cell(f"{share:.6g}" for share in shares)
            raise _contradiction("weights", merge["weights"], found, known)
    elif weights := known.weights(experts):
        merge["weights"] = join_cell(f"{weight:.9g}" for weight in weights)


def _method(merge: dict[str, str], known: Provenance) -> None:
    """Method and options, whose label may be one of a pool's own that names its method."""
    assert known.method is not None
    weight = [name for name in known.varying if name == "weight"]
    others = [name for name in known.varying if name not in ("weight", "normalize", "int8_mask")]
    for key, names in (("options", others), ("weights", weight)):
        if names and key not in merge:
            raise InputError(
                f"`{known.path}`: `{names[0]}` has no single value in the config of this merge",
                f"say `--as {key}=...` yourself: how the table should tell it from other merges",
            )
    label = merge.setdefault("method", known.method)
    options = _parsed(merge["options"]) if "options" in merge else None
    named = (options or {}).get("method", label)
    mergekit = LABELS.get(known.method, known.method)
    if named not in (known.method, mergekit):
        # Quoted, as a shell takes it for one word.
        method = json.dumps({"method": known.method})
        hint = f"beside a label of your own say `--as 'options={method}'`"
        raise _contradiction("method", str(named), known.method, known, hint)
    if options is None:
        merge["options"] = json.dumps(known.unusual, sort_keys=True)
        return
    given: dict[str, Any] = {key: value for key, value in options.items() if key != "method"}
    if known.method in LABELS and not known.varying:
        strange = {
            key: value for key, value in given.items() if key not in METHODS[mergekit].options
        }
        method_of(known.method, strange)  # says which it has
    usual = known.usual or {}
    for key, value in (known.options or {}).items():
        if given.get(key, usual[key]) != value:
            raise _contradiction("options", merge["options"], json.dumps(known.unusual), known)


def _parsed(options: str) -> dict[str, Any]:
    try:
        return parse_options(options)
    except ValueError as error:
        raise InputError(f"--as options: expected a JSON object, found `{options}`") from error


def _contradiction(
    key: str, said: str, found: str, known: Provenance, hint: str | None = None
) -> InputError:
    also = f"; {hint}" if hint else ""
    return InputError(
        f"--as `{key}={said}` contradicts `{known.path}`: found {key} `{found}`",
        f"leave `--as {key}=...` out: the manifest says it{also}",
    )
