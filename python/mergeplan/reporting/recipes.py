"""Configs of a pool's merges, with paths relative to the pool's folder."""

import os
from pathlib import Path
from typing import Any

from mergeplan.config.write import merge_config
from mergeplan.errors import InputError
from mergeplan.pool.pool import Pool, method_in, size_in
from mergeplan.reporting.source import Source


def recipes(source: Source) -> dict[str, Any] | None:
    """For each group the config of all experts, of which a page takes those that are ticked.

    Returns:
        `folder`, the name of the pool's folder, and by group `names` and `config`; `None` without
        a pool.
    """
    pool, pool_file = source.pool, source.pool_file
    if pool is None or pool_file is None:
        return None
    found = {}
    for number, (n_params, method, options) in enumerate(source.groups):
        try:
            label, settings = method_in(method, options, pool)
            size = size_in(n_params, pool)
            names = sorted(size.experts)
            paths = [size.experts[name] for name in names]
            config = merge_config(label, settings, size.base, paths, size.out_dtype)
        except InputError:
            continue  # what the pool lacks was measured elsewhere
        found[number] = {"names": names, "config": relative(config, pool, pool_file)}
    return {"folder": pool_file.absolute().parent.name, "groups": found}


def relative(config: Any, pool: Pool, pool_file: Path) -> Any:
    """A config whose models are named from the folder of the pool."""
    folder = pool_file.absolute().parent
    known: dict[str, str] = {}
    for size in pool.sizes:
        base = os.path.relpath(size.base, folder)
        known[str(size.base)] = base
        for path in size.experts.values():
            own = os.path.relpath(path, folder)
            known |= {str(path): own, f"{size.base}+{path}": f"{base}+{own}"}
    return _renamed(config, known)


def _renamed(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one, known) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, known) for one in value]
    return known.get(value, value) if isinstance(value, str) else value
